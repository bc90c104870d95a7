// SPDX-License-Identifier: Apache-2.0

#include "threads.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>

namespace {

constexpr size_t LINE = 16;  // floats of a cache line; a vector that lies across two takes twice as long to load

std::atomic<int> wanted{1};

class Pool {
 public:
  Pool() : process_(getpid()) {}

  bool is_of_this_process() const { return process_ == getpid(); }

  // False where it is at work for another caller, or has nobody to share with.
  bool run(int count, void (*work)(const void*, int), const void* of) {
    std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
    if (!busy || !has_helpers()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = work;
      of_ = of;
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
    for (int unit = next_++; unit < count_; unit = next_++) work_(of_, unit);
  }

  const pid_t process_;
  std::mutex busy_, mutex_;
  std::condition_variable wake_, done_;
  void (*work_)(const void*, int) = nullptr;
  const void* of_ = nullptr;
  int count_ = 0, helpers_ = 0, working_ = 0;
  long turn_ = 0;
  std::atomic<int> next_{0};
};

class Memory {
 public:
  ~Memory() { std::free(begin_); }

  float* of(size_t floats) {
    if (size_ < floats) {
      std::free(begin_);
      const size_t size = (floats + LINE - 1) / LINE * LINE;
      begin_ = static_cast<float*>(std::aligned_alloc(LINE * sizeof(float), size * sizeof(float)));
      size_ = begin_ ? size : 0;
      if (!begin_) throw std::bad_alloc();
    }
    return begin_;
  }

 private:
  float* begin_ = nullptr;
  size_t size_ = 0;
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

int threads() { return wanted; }

void for_each_unit(int count, void (*work)(const void*, int), const void* of) {
  if (count > 1 && wanted > 1 && pool().run(count, work, of)) return;
  for (int unit = 0; unit < count; ++unit) work(of, unit);
}

float* scratch(size_t floats) {
  thread_local Memory memory;
  return memory.of(floats);
}

float* shared_scratch(size_t floats) {
  thread_local Memory memory;
  return memory.of(floats);
}
