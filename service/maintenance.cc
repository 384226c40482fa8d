#include "service/maintenance.h"

#include "base/log.h"

namespace latentforge::service {

Maintenance::Maintenance(Scheduler& scheduler, Wakeup& wakeup, absl::Duration interval)
    : scheduler_(scheduler), wakeup_(wakeup), interval_(interval), thread_([this] { Run(); }) {}

Maintenance::~Maintenance() {
  stopping_ = true;
  wakeup_.Poke();
  thread_.join();
}

void Maintenance::Run() {
  bool was_fine = true;  // log the first failure of a row, not one every interval
  while (!stopping_) {
    const absl::Status status = scheduler_.Tick();
    if (!status.ok() && was_fine)
      Log(Severity::kError, "the scheduler cannot do its work; it goes on trying",
          {{"error", status.ToString()}});
    if (status.ok() && !was_fine) Log(Severity::kInfo, "the scheduler works again");
    was_fine = status.ok();
    wakeup_.Wait(interval_);
  }
}

}  // namespace latentforge::service
