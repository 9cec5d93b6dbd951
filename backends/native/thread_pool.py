"""The threads of compiled programs: a pool in LLVM's language, one for a process.

    dflow_parallel(f, context, parts)        f(context, k) for k = 0 ... parts - 1, each once, on several threads

The caller and the workers take numbers of parts from a counter. The pool serves one caller at a time: who finds it
busy, another thread of Python, runs all the parts itself. So nobody waits for a place, and there are never more threads
than asked for. In C it would read::

    void dflow_parallel(f, context, parts) {
        wanted = min(dflow_threads, parts) - 1;
        if (wanted < 1 || !enter()) { for (k = 0; k < parts; k++) f(context, k); return; }
        while (workers < wanted && start_worker()) workers++;
        job = {f, context, parts}; next = 0;
        lock(); round++; seats = wanted; unlock(); broadcast(begun);
        work(job, true);
        lock(); seats = 0; unlock();                     nobody comes any more
        spin for a while, until working == 0;
        lock(); while (working) wait(ended); unlock();
        busy = 0;
    }
    worker() {
        for (seen = 0;;) {
            spin for a while, until round != seen;
            lock();
            for (;;) {
                if (seats == 0 || round == seen) wait(begun);
                else if (this_core() == core) { unlock(); sched_yield(); lock(); }
                else break;
            }
            seen = round; seats--; working++; mine = job; unlock();
            work(mine, false);
            lock(); if (--working == 0) signal(ended); unlock();
        }
    }
    work(job, leads) {
        while ((k = next++) < job.parts) { if (leads) core = this_core(); job.f(job.context, k); }
    }

Where all cores are busy, systems wake a worker on the core of the caller. There it gives way until it is elsewhere: the
caller would wait for what it has begun.

Who spins looks again and again for some ten microseconds, which it takes to wake a thread: often the next region begins
before, or the others are done. Threads that are more than there are cores do not.

``enter`` takes ``busy``, unless the pool is another process's: after a fork the threads are gone, and the child begins
anew. Workers block all signals, which are for the threads of Python, and are never joined: they sleep until the process
ends.
"""

from __future__ import annotations

import platform
import signal
import sys
import time

SYMBOL, LIMIT, PATIENCE = "dflow_parallel", "dflow_threads", "dflow_patience"
LOCK_BYTES = 128  # room for what POSIX leaves to the system
# A hint to the processor that this thread waits for another.
_PAUSE = {
    **dict.fromkeys(("x86_64", "amd64"), "call void @llvm.x86.sse2.pause()"),
    **dict.fromkeys(("arm64", "aarch64"), "call void @llvm.aarch64.hint(i32 1)"),
}

_THIS_CORE = """
declare i32 @sched_getcpu()
define internal i32 @this_core() {
  %core = call i32 @sched_getcpu()
  ret i32 %core
}
"""
# Systems that do not say: no worker is on the core of the caller.
_NO_CORES = """
define internal i32 @this_core() {
  ret i32 -1
}
"""


def text(tells_core: bool = sys.platform == "linux") -> str:
    """The pool as a module of LLVM; ``tells_core``: whether the system says on which core a thread is."""
    if not hasattr(signal, "pthread_sigmask"):
        return _SEQUENTIAL
    return _POOL.format(
        pause=_PAUSE.get(platform.machine().lower(), ""),
        clock=time.CLOCK_MONOTONIC,
        bytes=LOCK_BYTES,
        this_core=_THIS_CORE if tells_core else _NO_CORES,
        block=int(signal.SIG_BLOCK),
        restore=int(signal.SIG_SETMASK),
    )


_ALONE = """
define internal void @alone(ptr %f, ptr %context, i64 %parts) {
entry:
  br label %head
head:
  %k = phi i64 [0, %entry], [%following, %body]
  %more = icmp slt i64 %k, %parts
  br i1 %more, label %body, label %done
body:
  call void %f(ptr %context, i64 %k)
  %following = add i64 %k, 1
  br label %head
done:
  ret void
}
"""

_WORDS = """
@dflow_threads = global i32 1
@dflow_patience = global i64 0
"""

_SEQUENTIAL = (
    _WORDS
    + _ALONE
    + """
define void @dflow_parallel(ptr %f, ptr %context, i64 %parts) {
  call void @alone(ptr %f, ptr %context, i64 %parts)
  ret void
}
"""
)

_POOL = (
    _WORDS
    + """
@owner = internal global i32 0
@busy = internal global i32 0
@workers = internal global i32 0
@round = internal global i32 0
@seats = internal global i32 0
@core = internal global i32 -1
@working = internal global i32 0
@f = internal global ptr null
@context = internal global ptr null
@parts = internal global i64 0
@next = internal global i64 0, align 64
@lock = internal global [{bytes} x i8] zeroinitializer, align 64
@begun = internal global [{bytes} x i8] zeroinitializer, align 64
@ended = internal global [{bytes} x i8] zeroinitializer, align 64

declare i32 @getpid()
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i32 @sigfillset(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(ptr)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @pthread_cond_signal(ptr)
"""
    + _ALONE.replace("{", "{{").replace("}", "}}")
    + """
{this_core}
define void @dflow_parallel(ptr %f, ptr %context, i64 %parts) {{
  %limit = load atomic i32, ptr @dflow_threads monotonic, align 4
  %wide = zext i32 %limit to i64
  %fewer = call i64 @llvm.smin.i64(i64 %wide, i64 %parts)
  %narrow = trunc i64 %fewer to i32
  %wanted = sub i32 %narrow, 1
  %several = icmp sgt i32 %wanted, 0
  br i1 %several, label %try, label %alone
try:
  %entered = call i1 @enter()
  br i1 %entered, label %hire, label %alone
alone:
  call void @alone(ptr %f, ptr %context, i64 %parts)
  ret void
hire:
  %count = load i32, ptr @workers
  %missing = icmp slt i32 %count, %wanted
  br i1 %missing, label %start, label %begin
start:
  %started = call i1 @start_worker()
  %raised = add i32 %count, 1
  br i1 %started, label %hired, label %begin
hired:
  store i32 %raised, ptr @workers
  br label %hire
begin:
  store ptr %f, ptr @f
  store ptr %context, ptr @context
  store i64 %parts, ptr @parts
  %here = call i32 @this_core()
  store atomic i32 %here, ptr @core monotonic, align 4
  store atomic i64 0, ptr @next monotonic, align 8
  call i32 @pthread_mutex_lock(ptr @lock)
  %round = load i32, ptr @round
  %advanced = add i32 %round, 1
  store atomic i32 %advanced, ptr @round monotonic, align 4
  store i32 %wanted, ptr @seats
  call i32 @pthread_mutex_unlock(ptr @lock)
  call i32 @pthread_cond_broadcast(ptr @begun)
  call void @work(ptr %f, ptr %context, i64 %parts, i1 true)
  call i32 @pthread_mutex_lock(ptr @lock)
  store i32 0, ptr @seats
  call i32 @pthread_mutex_unlock(ptr @lock)
  call void @spin(ptr @working, i32 0, i1 true)
  call i32 @pthread_mutex_lock(ptr @lock)
  br label %check
check:
  %working = load i32, ptr @working
  %over = icmp eq i32 %working, 0
  br i1 %over, label %leave, label %wait
wait:
  call i32 @pthread_cond_wait(ptr @ended, ptr @lock)
  br label %check
leave:
  call i32 @pthread_mutex_unlock(ptr @lock)
  store atomic i32 0, ptr @busy release, align 4
  ret void
}}

define internal i1 @enter() {{
  %process = call i32 @getpid()
  %owner = load atomic i32, ptr @owner acquire, align 4
  %own = icmp eq i32 %owner, %process
  br i1 %own, label %ours, label %others
ours:
  %taken = cmpxchg ptr @busy, i32 0, i32 1 acquire monotonic
  %free = extractvalue {{i32, i1}} %taken, 1
  ret i1 %free
others:
  %claim = sub i32 0, %process
  %claimed = icmp eq i32 %owner, %claim
  br i1 %claimed, label %late, label %make
late:
  ret i1 false
make:
  %swapped = cmpxchg ptr @owner, i32 %owner, i32 %claim acquire monotonic
  %first = extractvalue {{i32, i1}} %swapped, 1
  br i1 %first, label %fresh, label %late
fresh:
  call i32 @pthread_mutex_init(ptr @lock, ptr null)
  call i32 @pthread_cond_init(ptr @begun, ptr null)
  call i32 @pthread_cond_init(ptr @ended, ptr null)
  store i32 0, ptr @workers
  store i32 0, ptr @seats
  store i32 0, ptr @working
  store atomic i32 1, ptr @busy monotonic, align 4
  store atomic i32 %process, ptr @owner release, align 4
  ret i1 true
}}

define internal i1 @start_worker() {{
  %all = alloca [{bytes} x i8], align 16
  %before = alloca [{bytes} x i8], align 16
  %thread = alloca ptr
  call i32 @sigfillset(ptr %all)
  call i32 @pthread_sigmask(i32 {block}, ptr %all, ptr %before)
  %failed = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr null)
  call i32 @pthread_sigmask(i32 {restore}, ptr %before, ptr null)
  %made = icmp eq i32 %failed, 0
  br i1 %made, label %detach, label %done
detach:
  %id = load ptr, ptr %thread
  call i32 @pthread_detach(ptr %id)
  br label %done
done:
  ret i1 %made
}}

define internal ptr @worker(ptr %unused) {{
entry:
  br label %idle
idle:
  %seen = phi i32 [0, %entry], [%round, %finished]
  call void @spin(ptr @round, i32 %seen, i1 false)
  call i32 @pthread_mutex_lock(ptr @lock)
  br label %check
check:
  %seats = load i32, ptr @seats
  %round = load i32, ptr @round
  %full = icmp eq i32 %seats, 0
  %old = icmp eq i32 %round, %seen
  %nothing = or i1 %full, %old
  br i1 %nothing, label %sleep, label %look
look:
  %beside = call i1 @beside_the_caller()
  br i1 %beside, label %yield, label %join
yield:
  call i32 @pthread_mutex_unlock(ptr @lock)
  call i32 @sched_yield()
  call i32 @pthread_mutex_lock(ptr @lock)
  br label %check
sleep:
  call i32 @pthread_cond_wait(ptr @begun, ptr @lock)
  br label %check
join:
  %left = sub i32 %seats, 1
  store i32 %left, ptr @seats
  %before = load i32, ptr @working
  %more = add i32 %before, 1
  store atomic i32 %more, ptr @working monotonic, align 4
  %f = load ptr, ptr @f
  %context = load ptr, ptr @context
  %parts = load i64, ptr @parts
  call i32 @pthread_mutex_unlock(ptr @lock)
  call void @work(ptr %f, ptr %context, i64 %parts, i1 false)
  call i32 @pthread_mutex_lock(ptr @lock)
  %now = load i32, ptr @working
  %fewer = sub i32 %now, 1
  store atomic i32 %fewer, ptr @working monotonic, align 4
  %last = icmp eq i32 %fewer, 0
  br i1 %last, label %tell, label %finished
tell:
  call i32 @pthread_cond_signal(ptr @ended)
  br label %finished
finished:
  call i32 @pthread_mutex_unlock(ptr @lock)
  br label %idle
}}

define internal i1 @beside_the_caller() {{
  %here = call i32 @this_core()
  %core = load atomic i32, ptr @core monotonic, align 4
  %same = icmp eq i32 %here, %core
  %known = icmp sge i32 %here, 0
  %beside = and i1 %same, %known
  ret i1 %beside
}}

define internal void @work(ptr %f, ptr %context, i64 %parts, i1 %leads) {{
entry:
  br label %head
head:
  %k = atomicrmw add ptr @next, i64 1 monotonic
  %more = icmp slt i64 %k, %parts
  br i1 %more, label %next, label %done
next:
  br i1 %leads, label %tell, label %body
tell:
  %here = call i32 @this_core()
  store atomic i32 %here, ptr @core monotonic, align 4
  br label %body
body:
  call void %f(ptr %context, i64 %k)
  br label %head
done:
  ret void
}}

define internal void @spin(ptr %word, i32 %value, i1 %wanted) {{
entry:
  %patience = load atomic i64, ptr @dflow_patience monotonic, align 8
  %begin = call i64 @nanoseconds()
  br label %head
head:
  %found = load atomic i32, ptr %word monotonic, align 4
  %equal = icmp eq i32 %found, %value
  %holds = icmp eq i1 %equal, %wanted
  br i1 %holds, label %end, label %again
again:
  {pause}
  %now = call i64 @nanoseconds()
  %elapsed = sub i64 %now, %begin
  %tired = icmp sgt i64 %elapsed, %patience
  br i1 %tired, label %end, label %head
end:
  ret void
}}

define internal i64 @nanoseconds() {{
  %time = alloca [2 x i64]
  call i32 @clock_gettime(i32 {clock}, ptr %time)
  %seconds = load i64, ptr %time
  %at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %at
  %whole = mul i64 %seconds, 1000000000
  %all = add i64 %whole, %rest
  ret i64 %all
}}
"""
)
