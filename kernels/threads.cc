// SPDX-License-Identifier: Apache-2.0

#include "threads.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

namespace {

std::atomic<int> wanted{1};

class Pool {
 public:
  Pool() : process_(getpid()) {}

  bool is_of_this_process() const { return process_ == getpid(); }

  // False where it is at work for another caller, or has nobody to share with.
  bool run(int count, const std::function<void(int)>& work) {
    std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
    if (!busy || !has_helpers()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      count_ = count;
      next_ = 0;
      working_ = helpers_;
      ++turn_;
    }
    wake_.notify_all();
    take_units();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return working_ == 0; });
    return true;
  }

 private:
  // Start those that are missing. Where the system gives no more threads, fewer will do.
  bool has_helpers() {
    while (helpers_ < wanted - 1) {
      try {
        std::thread([this, turn = turn_, number = helpers_ + 1] { help(number, turn); }).detach();
      } catch (const std::system_error&) {
        break;
      }
      ++helpers_;
    }
    return helpers_ > 0;
  }

  void help(int number, long seen) {
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return turn_ != seen; });
        seen = turn_;
      }
      if (number < wanted) take_units();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--working_ == 0) done_.notify_one();
    }
  }

  void take_units() {
    for (int unit = next_++; unit < count_; unit = next_++) (*work_)(unit);
  }

  const pid_t process_;
  std::mutex busy_, mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int)>* work_ = nullptr;
  int count_ = 0, helpers_ = 0, working_ = 0;
  long turn_ = 0;
  std::atomic<int> next_{0};
};

// Never destroyed, as its threads may outlive all else; that of a parent process is left as fork found it.
Pool& pool() {
  static std::atomic<Pool*> current{new Pool};
  Pool* found = current;
  if (!found->is_of_this_process()) {
    Pool* fresh = new Pool;
    if (current.compare_exchange_strong(found, fresh)) return *fresh;
    delete fresh;
  }
  return *found;
}

}  // namespace

void set_threads(int count) { wanted = count; }

void for_each_unit(int count, const std::function<void(int)>& work) {
  if (count > 1 && wanted > 1 && pool().run(count, work)) return;
  for (int unit = 0; unit < count; ++unit) work(unit);
}

float* scratch(size_t floats) {
  thread_local std::unique_ptr<float[]> memory;
  thread_local size_t size = 0;
  if (size < floats) {
    memory.reset();
    memory.reset(new float[floats]);
    size = floats;
  }
  return memory.get();
}
