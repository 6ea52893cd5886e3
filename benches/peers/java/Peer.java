import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.RejectedExecutionHandler;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/**
 * ThreadPoolExecutor with a queue of 1,024, and the two things that are done when it is full: the caller runs the job, or
 * waits for room by a put into the queue.
 */
final class Peer {
    static final int SUBMIT_JOBS = 200_000;
    static final int PRODUCERS = 4;
    static final int JOINS = 10_000;
    static final int JOINS_AFTER_IDLENESS = 500;
    static final long IDLENESS = 200_000;
    static final int TASKS = 1_000;
    static final int GROUPS = 200;
    static final int DEPTH = 24;
    static final int CAPACITY = 1024;

    static final String CALLER_RUNS = "java_caller_runs";
    static final String BLOCKING_PUT = "java_blocking_put";
    static final String[] WORKLOADS = {"w1_submit", "w2_producers", "w3_join", "w3_join_idle", "w4_group"};

    /** Where the jobs put the word they capture, so that it is captured. */
    static volatile int sink;

    interface Batch {
        void run() throws Exception;
    }

    final ThreadPoolExecutor pool;
    final int workers;

    Peer(String candidate, int workers) {
        RejectedExecutionHandler put = (job, pool) -> {
            try {
                pool.getQueue().put(job);
            } catch (InterruptedException e) {
                throw new RejectedExecutionException(e);
            }
        };
        RejectedExecutionHandler full =
                candidate.equals(CALLER_RUNS) ? new ThreadPoolExecutor.CallerRunsPolicy() : put;
        this.workers = workers;
        pool = new ThreadPoolExecutor(workers, workers, 1, TimeUnit.DAYS, new ArrayBlockingQueue<>(CAPACITY), full);
        pool.prestartAllCoreThreads();
    }

    static Runnable empty(int number) {
        return () -> {
            if (number < 0) {
                sink = number;
            }
        };
    }

    /**
     * Waits until all that was submitted before has run; see `waiting` among the Rust sources. These jobs must not be run
     * by the caller, so they are put into the queue.
     */
    void waitForWorkers() throws InterruptedException {
        CountDownLatch arrived = new CountDownLatch(workers);
        CountDownLatch leave = new CountDownLatch(1);
        for (int i = 0; i < workers; i++) {
            pool.getQueue().put(() -> {
                arrived.countDown();
                try {
                    leave.await();
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
            });
        }
        arrived.await();
        leave.countDown();
    }

    static String timed(int batches, int jobsPerBatch, Batch batch) throws Exception {
        StringBuilder answer = new StringBuilder().append(batches * jobsPerBatch).append("\t-");
        for (int i = 0; i < batches; i++) {
            long started = System.nanoTime();
            batch.run();
            answer.append('\t').append((double) (System.nanoTime() - started) / jobsPerBatch);
        }
        return answer.toString();
    }

    void submit(int jobs) {
        for (int i = 0; i < jobs; i++) {
            pool.execute(empty(i));
        }
    }

    void submitFromMany() throws InterruptedException {
        Thread[] threads = new Thread[PRODUCERS];
        for (int i = 0; i < PRODUCERS; i++) {
            threads[i] = new Thread(() -> submit(SUBMIT_JOBS / PRODUCERS));
            threads[i].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        waitForWorkers();
    }

    void join() throws Exception {
        Future<Integer> result = pool.submit(() -> 1);
        sink = result.get();
    }

    String joinAfterIdleness() throws Exception {
        StringBuilder answer = new StringBuilder().append(JOINS_AFTER_IDLENESS).append("\t-");
        for (int i = 0; i < JOINS_AFTER_IDLENESS; i++) {
            long idle = System.nanoTime();
            while (System.nanoTime() - idle < IDLENESS) {
                Thread.onSpinWait();
            }
            long started = System.nanoTime();
            join();
            answer.append('\t').append(System.nanoTime() - started);
        }
        return answer.toString();
    }

    void group() throws InterruptedException {
        CountDownLatch done = new CountDownLatch(TASKS);
        for (int i = 0; i < TASKS; i++) {
            Runnable job = empty(i);
            pool.execute(() -> {
                job.run();
                done.countDown();
            });
        }
        done.await();
    }

    void grow(int depth, CountDownLatch done) {
        pool.execute(() -> {
            for (int left = depth; left >= 2; left -= 2) {
                grow(left - 1, done);
            }
            done.countDown();
        });
    }

    String tree() throws Exception {
        int jobs = 1;
        for (int i = 0, next = 1; i < DEPTH; i++) {
            int sum = jobs + next;
            jobs = next;
            next = sum;
        }
        int all = jobs;
        return timed(1, all, () -> {
            CountDownLatch done = new CountDownLatch(all);
            grow(DEPTH, done);
            done.await();
        });
    }

    String runRound(String workload) throws Exception {
        switch (workload) {
            case "w1_submit":
                return timed(1, SUBMIT_JOBS, () -> {
                    submit(SUBMIT_JOBS);
                    waitForWorkers();
                });
            case "w2_producers":
                return timed(1, SUBMIT_JOBS, this::submitFromMany);
            case "w3_join":
                return timed(JOINS, 1, this::join);
            case "w3_join_idle":
                return joinAfterIdleness();
            case "w4_group":
                return timed(GROUPS, TASKS, this::group);
            case "w6t_tree":
                return tree();
            default:
                throw new IllegalArgumentException(workload);
        }
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println("version\t" + System.getProperty("java.vm.name") + " " + Runtime.version());
        for (String candidate : new String[] {CALLER_RUNS, BLOCKING_PUT}) {
            for (String workload : WORKLOADS) {
                System.out.println("offers\t" + workload + "\t" + candidate);
            }
        }
        // A worker that puts into its own full queue may wait for ever, so only one of them grows a tree.
        System.out.println("offers\tw6t_tree\t" + CALLER_RUNS);
        System.out.println("ready");
        Map<String, Peer> peers = new HashMap<>();
        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in));
        for (String line = orders.readLine(); line != null; line = orders.readLine()) {
            String[] order = line.split("\t");
            int workers = Integer.parseInt(order[2]);
            Peer peer = peers.computeIfAbsent(order[1], candidate -> new Peer(candidate, workers));
            System.out.println(peer.runRound(order[0]));
        }
        System.exit(0);
    }
}
