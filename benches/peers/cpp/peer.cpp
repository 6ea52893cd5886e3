// oneTBB's task_group: the best of C++ for tasks that are waited for together. The thread that waits runs tasks as well,
// so with an arena of as many threads as workers there is one worker less, as is TBB's way.
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <tbb/global_control.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>
#include <tbb/version.h>

namespace {

constexpr int submit_jobs = 200'000;
constexpr int joins = 10'000;
constexpr int joins_after_idleness = 500;
constexpr auto idleness = std::chrono::microseconds(200);
constexpr int tasks = 1'000;
constexpr int groups = 200;
constexpr int depth = 24;

using Clock = std::chrono::steady_clock;

double nanoseconds_since(Clock::time_point started) {
    return std::chrono::duration<double, std::nano>(Clock::now() - started).count();
}

// Where the jobs put the word they capture, so that it is captured.
volatile long sink;

auto empty(int number) {
    return [number] {
        if (number < 0) {
            sink = number;
        }
    };
}

template <typename Run> std::string timed(int batches, int jobs_per_batch, Run run) {
    std::ostringstream answer;
    answer << batches * jobs_per_batch << "\t-";
    for (int i = 0; i < batches; i++) {
        auto started = Clock::now();
        run();
        answer << '\t' << nanoseconds_since(started) / jobs_per_batch;
    }
    return answer.str();
}

void run_group(int size) {
    tbb::task_group group;
    for (int i = 0; i < size; i++) {
        group.run(empty(i));
    }
    group.wait();
}

void join() {
    tbb::task_group group;
    long result = 0;
    group.run([&result] { result = 1; });
    group.wait();
    sink = result;
}

std::string join_after_idleness() {
    std::ostringstream answer;
    answer << joins_after_idleness << "\t-";
    for (int i = 0; i < joins_after_idleness; i++) {
        for (auto idle = Clock::now(); Clock::now() - idle < idleness;) {
        }
        auto started = Clock::now();
        join();
        answer << '\t' << nanoseconds_since(started);
    }
    return answer.str();
}

void grow(tbb::task_group &group, int depth) {
    group.run([&group, depth] {
        for (int left = depth; left >= 2; left -= 2) {
            grow(group, left - 1);
        }
    });
}

int jobs_of_tree() {
    int jobs = 1;
    for (int i = 0, next = 1; i < depth; i++) {
        int sum = jobs + next;
        jobs = next;
        next = sum;
    }
    return jobs;
}

long fib(int n) {
    if (n < 2) {
        return n;
    }
    long left = 0;
    tbb::task_group group;
    group.run([&left, n] { left = fib(n - 1); });
    long right = fib(n - 2);
    group.wait();
    return left + right;
}

std::string run_round(const std::string &workload) {
    if (workload == "w1_submit") {
        return timed(1, submit_jobs, [] { run_group(submit_jobs); });
    }
    if (workload == "w3_join") {
        return timed(joins, 1, join);
    }
    if (workload == "w3_join_idle") {
        return join_after_idleness();
    }
    if (workload == "w4_group") {
        return timed(groups, tasks, [] { run_group(tasks); });
    }
    if (workload == "w6t_tree") {
        return timed(1, jobs_of_tree(), [] {
            tbb::task_group group;
            grow(group, depth);
            group.wait();
        });
    }
    if (workload == "w6f_fork_join") {
        return timed(1, jobs_of_tree() - 1, [] { sink = fib(depth); });
    }
    std::fprintf(stderr, "no workload %s\n", workload.c_str());
    std::exit(1);
}

} // namespace

int main() {
    std::cout << "version\toneTBB " << TBB_runtime_version() << ", g++ " << __VERSION__ << '\n';
    for (auto workload : {"w1_submit", "w3_join", "w3_join_idle", "w4_group", "w6t_tree", "w6f_fork_join"}) {
        std::cout << "offers\t" << workload << "\ttbb_task_group\n";
    }
    std::cout << "ready" << std::endl;
    std::unique_ptr<tbb::global_control> control;
    std::unique_ptr<tbb::task_arena> arena;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream order(line);
        std::string workload, candidate;
        int workers = 0;
        order >> workload >> candidate >> workers;
        if (!arena) {
            control = std::make_unique<tbb::global_control>(tbb::global_control::max_allowed_parallelism, workers);
            arena = std::make_unique<tbb::task_arena>(workers);
        }
        std::cout << arena->execute([&workload] { return run_round(workload); }) << std::endl;
    }
}
