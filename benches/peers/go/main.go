// What a Go service does for asynchronous work: goroutines that receive closures from a channel, and an errgroup.
//
// The errgroup is written with the standard library alone, as golang.org/x/sync has it: a WaitGroup, a Once for the
// first error, a context that is cancelled with it, a goroutine for each task.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	submitJobs         = 200_000
	producers          = 4
	joins              = 10_000
	joinsAfterIdleness = 500
	idleness           = 200 * time.Microsecond
	tasks              = 1_000
	groups             = 200
	doomed             = 10_000
	failing            = 99
	failingGroups      = 100
	depth              = 24
	keyedTasks         = 100_000
	keys               = 64
	queuedOfKey        = 1_024 / keys
)

// The result of a round.
type measurement struct {
	jobs        int
	ran         []int64 // of each batch, where it is in question
	nanoseconds []float64
}

// The pool of the field: closures through a bounded channel to as many goroutines as there are workers.
type pool struct {
	jobs    chan func()
	workers int
}

func newPool(capacity, workers int) *pool {
	p := &pool{make(chan func(), capacity), workers}
	for i := 0; i < workers; i++ {
		go func() {
			for job := range p.jobs {
				job()
			}
		}()
	}
	return p
}

// Waits until all that was submitted before has run; see `waiting` among the Rust sources.
func (p *pool) waitForWorkers() {
	var arrived, leave sync.WaitGroup
	arrived.Add(p.workers)
	leave.Add(1)
	for i := 0; i < p.workers; i++ {
		p.jobs <- func() {
			arrived.Done()
			leave.Wait()
		}
	}
	arrived.Wait()
	leave.Done()
}

// Where the jobs put the word they capture, so that it is captured.
var sink uintptr

func empty(number int) func() {
	return func() {
		if number < 0 {
			sink = uintptr(number)
		}
	}
}

func timed(batches, jobsPerBatch int, run func()) measurement {
	t := measurement{jobs: batches * jobsPerBatch}
	for i := 0; i < batches; i++ {
		started := time.Now()
		run()
		t.nanoseconds = append(t.nanoseconds, float64(time.Since(started).Nanoseconds())/float64(jobsPerBatch))
	}
	return t
}

func (p *pool) submit() measurement {
	return timed(1, submitJobs, func() {
		for i := 0; i < submitJobs; i++ {
			p.jobs <- empty(i)
		}
		p.waitForWorkers()
	})
}

func (p *pool) submitFromMany() measurement {
	return timed(1, submitJobs, func() {
		var done sync.WaitGroup
		done.Add(producers)
		for i := 0; i < producers; i++ {
			go func() {
				for i := 0; i < submitJobs/producers; i++ {
					p.jobs <- empty(i)
				}
				done.Done()
			}()
		}
		done.Wait()
		p.waitForWorkers()
	})
}

func (p *pool) join() {
	result := make(chan int, 1)
	p.jobs <- func() { result <- 1 }
	<-result
}

func (p *pool) joinAfterIdleness() measurement {
	t := measurement{jobs: joinsAfterIdleness}
	for i := 0; i < joinsAfterIdleness; i++ {
		for idle := time.Now(); time.Since(idle) < idleness; {
		}
		started := time.Now()
		p.join()
		t.nanoseconds = append(t.nanoseconds, float64(time.Since(started).Nanoseconds()))
	}
	return t
}

func (p *pool) group() measurement {
	return timed(groups, tasks, func() {
		var done sync.WaitGroup
		done.Add(tasks)
		for i := 0; i < tasks; i++ {
			job := empty(i)
			p.jobs <- func() {
				job()
				done.Done()
			}
		}
		done.Wait()
	})
}

// A job that finds the channel full runs the next one itself: one that waited for room could wait for ever.
func (p *pool) grow(depth int, done *sync.WaitGroup) {
	done.Add(1)
	job := func() {
		for ; depth >= 2; depth -= 2 {
			p.grow(depth-1, done)
		}
		done.Done()
	}
	select {
	case p.jobs <- job:
	default:
		job()
	}
}

func (p *pool) tree() measurement {
	jobs, next := 1, 1
	for i := 0; i < depth; i++ {
		jobs, next = next, jobs+next
	}
	return timed(1, jobs, func() {
		var done sync.WaitGroup
		p.grow(depth, &done)
		done.Wait()
	})
}

// A goroutine for each key, which receives the tasks of that key in order. Its bounded channel makes the submitter wait.
type keyed map[int]chan func()

func newKeyed() keyed {
	k := keyed{}
	for key := 0; key < keys; key++ {
		k[key] = make(chan func(), queuedOfKey)
		go func(tasks chan func()) {
			for task := range tasks {
				task()
			}
		}(k[key])
	}
	return k
}

func (k keyed) submit() measurement {
	return timed(1, keyedTasks, func() {
		for i := 0; i < keyedTasks; i++ {
			k[i%keys] <- empty(i)
		}
		var done sync.WaitGroup
		done.Add(keys)
		for _, tasks := range k {
			tasks <- done.Done
		}
		done.Wait()
	})
}

type errgroup struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	once   sync.Once
	err    error
}

func newErrgroup() (*errgroup, context.Context) {
	ctx, cancel := context.WithCancel(context.Background())
	return &errgroup{cancel: cancel}, ctx
}

func (g *errgroup) spawn(f func() error) {
	g.done.Add(1)
	go func() {
		defer g.done.Done()
		if err := f(); err != nil {
			g.once.Do(func() {
				g.err = err
				g.cancel()
			})
		}
	}()
}

func (g *errgroup) wait() error {
	g.done.Wait()
	g.cancel()
	return g.err
}

func errgroupOf1000() measurement {
	return timed(groups, tasks, func() {
		g, _ := newErrgroup()
		for i := 0; i < tasks; i++ {
			job := empty(i)
			g.spawn(func() error {
				job()
				return nil
			})
		}
		if g.wait() != nil {
			panic("no task fails")
		}
	})
}

// The spawner stops when it sees the cancellation, and so does a task that has not begun, as one writes it by hand.
func failingErrgroup() measurement {
	var rans []int64
	failure := errors.New("the hundredth")
	t := timed(failingGroups, 1, func() {
		var ran int64
		g, ctx := newErrgroup()
		for i := 0; i < doomed && ctx.Err() == nil; i++ {
			number := i
			g.spawn(func() error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				atomic.AddInt64(&ran, 1)
				if number == failing {
					return failure
				}
				return nil
			})
		}
		if g.wait() == nil {
			panic("a task fails")
		}
		rans = append(rans, ran)
	})
	t.ran = rans
	return t
}

func runRound(workload, candidate string, p *pool, k keyed) (measurement, error) {
	if candidate == "go_errgroup" {
		switch workload {
		case "w4_group":
			return errgroupOf1000(), nil
		case "w5_first_error":
			return failingErrgroup(), nil
		}
	}
	switch workload {
	case "w1_submit":
		return p.submit(), nil
	case "w2_producers":
		return p.submitFromMany(), nil
	case "w3_join":
		return timed(joins, 1, p.join), nil
	case "w3_join_idle":
		return p.joinAfterIdleness(), nil
	case "w4_group":
		return p.group(), nil
	case "w6t_tree":
		return p.tree(), nil
	case "w13_keys":
		return k.submit(), nil
	}
	return measurement{}, fmt.Errorf("no workload %s for %s", workload, candidate)
}

func offer(candidate string, workloads ...string) {
	for _, workload := range workloads {
		fmt.Printf("offers\t%s\t%s\n", workload, candidate)
	}
}

func main() {
	fmt.Printf("version\t%s\n", runtime.Version())
	capacities := map[string]int{"go_channel_1024": 1024, "go_channel_100": 100}
	pools := map[string]*pool{}
	for _, candidate := range []string{"go_channel_1024", "go_channel_100"} {
		offer(candidate, "w1_submit", "w2_producers", "w3_join", "w3_join_idle", "w4_group", "w6t_tree")
	}
	offer("go_errgroup", "w4_group", "w5_first_error")
	offer("go_goroutine_for_each_key", "w13_keys")
	var k keyed
	fmt.Println("ready")
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		order := strings.Split(orders.Text(), "\t")
		candidate := order[1]
		if capacity, ok := capacities[candidate]; ok && pools[candidate] == nil {
			workers, err := strconv.Atoi(order[2])
			if err != nil {
				panic(err)
			}
			pools[candidate] = newPool(capacity, workers)
		}
		if candidate == "go_goroutine_for_each_key" && k == nil {
			k = newKeyed()
		}
		t, err := runRound(order[0], candidate, pools[candidate], k)
		if err != nil {
			panic(err)
		}
		ran := "-"
		for i, count := range t.ran {
			if i == 0 {
				ran = ""
			} else {
				ran += ","
			}
			ran += strconv.FormatInt(count, 10)
		}
		fmt.Printf("%d\t%s", t.jobs, ran)
		for _, value := range t.nanoseconds {
			fmt.Printf("\t%.1f", value)
		}
		fmt.Println()
	}
}
