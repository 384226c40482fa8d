// Calls that have no deadline get one from the server.
#include <thread>

#include "service/store/sqlite_db.h"
#include "tests/service/server_fixture.h"

namespace latentforge::service {
namespace {

class CallDeadlineTest : public ServerTest {
 protected:
  grpc::Status Get(const std::string& name, grpc::ClientContext& context) {
    v1::GetJobRequest request;
    request.set_name(name);
    v1::GetJobResponse response;
    return client_->jobs->GetJob(&context, request, &response);
  }
};

TEST_F(CallDeadlineTest, ACallWithoutOneIsAnsweredThoughItsTurnDoesNotCome) {
  ServerOptions options = Options();
  options.threads = 1;
  options.call_deadline = absl::Milliseconds(200);
  Start(options);
  const std::string job = CreateJob();
  // A submit has the one thread, and waits for the database.
  auto blocker = Database::Open(dir_.path() / "jobs.db", Database::Mode::kReadWrite);
  ASSERT_TRUE(blocker.ok()) << blocker.status();
  auto transaction = Transaction::Begin(*blocker);
  ASSERT_TRUE(transaction.ok()) << transaction.status();
  grpc::Status submitted;
  std::thread submit([&] {
    v1::CreateJobResponse response;
    submitted = client_->Create(TinyJob(dir_.path(), 1), &response);
  });
  grpc::Status late;
  for (int i = 0; i < 1000 && late.ok(); ++i) {  // until the submit is there
    grpc::ClientContext context;
    late = Get(job, context);
  }
  EXPECT_EQ(late.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(ReasonOf(late), "CALL_DEADLINE");
  EXPECT_TRUE(HasRetryDelay(late));
  EXPECT_EQ(
      late.error_message(),
      "the server did not come to the call within 200ms, which calls without a deadline have");
  ASSERT_TRUE(transaction->Commit().ok());
  submit.join();
  EXPECT_TRUE(submitted.ok()) << "it has a deadline of its own: " << submitted.error_message();
  grpc::ClientContext context;
  EXPECT_TRUE(Get(job, context).ok());
}

}  // namespace
}  // namespace latentforge::service
