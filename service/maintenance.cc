#include "service/maintenance.h"

#include <utility>

#include "base/log.h"

namespace latentforge::service {

Maintenance::Maintenance(std::function<absl::Status()> work, Wakeup& wakeup,
                         absl::Duration interval)
    : work_(std::move(work)), wakeup_(wakeup), interval_(interval), thread_([this] { Run(); }) {}

Maintenance::~Maintenance() {
  stopping_ = true;
  wakeup_.Poke();
  thread_.join();
}

void Maintenance::Run() {
  bool was_fine = true;  // log the first failure of a row, not one every interval
  while (!stopping_) {
    const absl::Status status = work_();
    if (!status.ok() && was_fine)
      Log(Severity::kError, "the server cannot do its regular work; it goes on trying",
          {{"error", status.ToString()}});
    if (status.ok() && !was_fine) Log(Severity::kInfo, "the server does its regular work again");
    was_fine = status.ok();
    wakeup_.Wait(interval_);
  }
}

}  // namespace latentforge::service
