// A proxy that misbehaves as it is told, between a worker or a client and its server, or between a
// server and its database.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/unique_fd.h"

struct pollfd;

namespace latentforge::faults {

// What becomes of the bytes that pass.
struct Passage {
  absl::Duration delay = absl::ZeroDuration();  // they arrive that much later
  bool stalled = false;        // they wait, and no connection ends: a network that is cut
  bool lose_requests = false;  // those of the caller are lost
  bool lose_answers = false;   // those of the target are lost
  bool refused = false;        // connections are closed as they come
};

// Passes bytes between whoever connects to `listen` and `target`; both are unix:/PATH or
// HOST:PORT in numbers. Safe for concurrent use.
class FaultProxy {
 public:
  FaultProxy(const std::string& listen, std::string target);
  ~FaultProxy();

  // From now on. Connections that lost bytes are closed by the next passage that loses none, for
  // what they carried makes no sense any more.
  void Set(const Passage& passage);
  // Closes every connection.
  void Cut();
  // The target hears no more of any connection, and can still answer.
  void HalfClose();

  // How many connections there were.
  int64_t accepted() const { return accepted_; }

 private:
  // One direction of a connection.
  struct Stream {
    struct Chunk {
      absl::Time due;
      std::string bytes;
    };
    std::deque<Chunk> chunks;
    size_t held = 0;        // bytes in them
    bool lossy = false;     // bytes of it were lost
    bool ended = false;     // its source has said all
    bool finished = false;  // and its sink was told so
  };
  struct Connection {
    UniqueFd caller;
    UniqueFd target;
    Stream requests;
    Stream answers;
  };

  void Run();
  void Obey();
  void Accept();
  bool Serve(Connection& connection, short caller_events, short target_events);
  static bool Receive(int from, Stream& stream, absl::Time due, bool lose);
  static bool Send(int to, Stream& stream, absl::Time now);
  short EventsOf(const Stream& outgoing, const Stream& incoming, absl::Time now) const;
  int Timeout(absl::Time now) const;

  const std::string target_address_;
  UniqueFd listener_;
  UniqueFd wake_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int64_t> accepted_ = 0;

  absl::Mutex mutex_;
  Passage wanted_ ABSL_GUARDED_BY(mutex_);
  bool cut_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_close_ ABSL_GUARDED_BY(mutex_) = false;

  // Of the thread.
  Passage passage_;
  std::list<Connection> connections_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace latentforge::faults
