/* Teams of threads: see threads.h.  POSIX and Windows; GCC-style atomics or Interlocked. */
#include <stdint.h>
#include <stdlib.h>

#include "threads.h"

#if defined(_WIN32)
#include <windows.h>
typedef HANDLE thread_t;
typedef SRWLOCK mutex_t;
typedef CONDITION_VARIABLE condition_t;
#define mutex_init(m) InitializeSRWLock(m)
#define mutex_lock(m) AcquireSRWLockExclusive(m)
#define mutex_unlock(m) ReleaseSRWLockExclusive(m)
#define condition_init(c) InitializeConditionVariable(c)
#define condition_wait(c, m) SleepConditionVariableSRW(c, m, INFINITE, 0)
#define condition_wake_all(c) WakeAllConditionVariable(c)
#define THREAD_RESULT DWORD WINAPI
#define THREAD_START(t, f, arg) (((t) = CreateThread(NULL, 0, f, arg, 0, NULL)) != NULL)
#define THREAD_JOIN(t) (WaitForSingleObject(t, INFINITE), CloseHandle(t))
#define give_way() SwitchToThread()
#define nap() Sleep(1)
#define mutex_destroy(m) ((void)(m))
#define condition_destroy(c) ((void)(c))
#else
#include <pthread.h>
#include <sched.h>
#include <time.h>
typedef pthread_t thread_t;
typedef pthread_mutex_t mutex_t;
typedef pthread_cond_t condition_t;
#define mutex_init(m) pthread_mutex_init(m, NULL)
#define mutex_lock(m) pthread_mutex_lock(m)
#define mutex_unlock(m) pthread_mutex_unlock(m)
#define condition_init(c) pthread_cond_init(c, NULL)
#define condition_wait(c, m) pthread_cond_wait(c, m)
#define condition_wake_all(c) pthread_cond_broadcast(c)
#define THREAD_RESULT void *
#define THREAD_START(t, f, arg) (pthread_create(&(t), NULL, f, arg) == 0)
#define THREAD_JOIN(t) pthread_join(t, NULL)
#define give_way() sched_yield()
static void nap(void)
{
    const struct timespec pause = {0, 20000};
    nanosleep(&pause, NULL);
}
#define mutex_destroy(m) pthread_mutex_destroy(m)
#define condition_destroy(c) pthread_cond_destroy(c)
#endif

typedef fm_counter counter;

#if defined(__GNUC__) || defined(__clang__)
#define load(c) __atomic_load_n(&(c)->value, __ATOMIC_ACQUIRE)
#define store(c, v) __atomic_store_n(&(c)->value, v, __ATOMIC_RELEASE)
#define add(c, v) __atomic_add_fetch(&(c)->value, v, __ATOMIC_ACQ_REL)
#define exchange(p, v) __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL)
#else
#define load(c) InterlockedCompareExchange(&(c)->value, 0, 0)
#define store(c, v) InterlockedExchange(&(c)->value, v)
#define add(c, v) (InterlockedExchangeAdd(&(c)->value, v) + (v))
#define exchange(p, v) InterlockedExchange(p, v)
#endif

#if defined(__x86_64__) || defined(__i386__)
#define relax() __builtin_ia32_pause()
#elif defined(_M_X64) || defined(_M_IX86)
#define relax() YieldProcessor()
#elif defined(__aarch64__) && defined(__GNUC__)
#define relax() __asm__ volatile("yield")
#else
#define relax() ((void)0)
#endif

/* Looks before giving way to other threads, and then before sleeping: on a machine with more to do than processors,
 * the member waited for needs this one's. */
#define SPINS 4000
#define YIELDS 40

typedef struct {
    struct fm_team *team;
    int member;
    thread_t thread;
} helper;

struct fm_team {
    int n;                  /* members */
    counter arrived;        /* at the barrier */
    counter round;          /* of the barrier; members wait for it to move on */
    counter job;            /* grows by one with every job; helpers wait for it to move on */
    counter running;        /* helpers still at work on the job */
    int stop;
    void (*work)(void *, int);
    void *arg;
    mutex_t mutex;          /* for sleeping helpers only */
    condition_t wake;
    helper *helpers;        /* (n - 1,) */
};

/* Let a little time pass, the more the longer one has been waiting. */
static void pause_once(int *spins)
{
    if (++*spins < SPINS)
        relax();
    else if (*spins < SPINS + YIELDS)
        give_way();
    else
        nap();
}

/* Wait, awake, until *c differs from `old`. */
static void wait_for_change(counter *c, long old)
{
    int spins = 0;
    while (load(c) == old)
        pause_once(&spins);
}

void fm_team_barrier(fm_team *team)
{
    if (!team)
        return;
    const long round = load(&team->round);
    if (add(&team->arrived, 1) == team->n) {
        store(&team->arrived, 0);
        store(&team->round, round + 1);
    } else {
        wait_for_change(&team->round, round);
    }
}

static THREAD_RESULT helper_main(void *self_)
{
    helper *self = self_;
    fm_team *team = self->team;
    long seen = 0;
    for (;;) {
        for (int spins = 0; load(&team->job) == seen && spins < SPINS + YIELDS; spins++)
            if (spins < SPINS)
                relax();
            else
                give_way();
        if (load(&team->job) == seen) {
            mutex_lock(&team->mutex);
            while (load(&team->job) == seen)
                condition_wait(&team->wake, &team->mutex);
            mutex_unlock(&team->mutex);
        }
        seen++;
        if (team->stop)
            return 0;
        team->work(team->arg, self->member);
        add(&team->running, -1);
    }
}

static void announce(fm_team *team)
{
    mutex_lock(&team->mutex);
    add(&team->job, 1);
    condition_wake_all(&team->wake);
    mutex_unlock(&team->mutex);
}

void fm_team_run(fm_team *team, void (*work)(void *, int), void *arg)
{
    if (team) {
        team->work = work;
        team->arg = arg;
        store(&team->running, team->n - 1);
        announce(team);
    }
    work(arg, 0);
    if (team)
        for (long left = load(&team->running); left > 0; left = load(&team->running))
            wait_for_change(&team->running, left);
}

fm_team *fm_team_new(int n)
{
    fm_team *team = calloc(1, sizeof *team);
    if (!team)
        return NULL;
    team->n = 1;
    mutex_init(&team->mutex);
    condition_init(&team->wake);
    team->helpers = calloc((size_t)n, sizeof *team->helpers);
    for (int i = 0; team->helpers && i < n - 1; i++) {
        helper *h = &team->helpers[i];
        h->team = team;
        h->member = i + 1;
        if (!THREAD_START(h->thread, helper_main, h))
            break;
        team->n++;
    }
    if (team->n < n) {
        fm_team_free(team);
        return NULL;
    }
    return team;
}

void fm_team_free(fm_team *team)
{
    if (!team)
        return;
    team->stop = 1;
    announce(team);
    for (int i = 0; i < team->n - 1; i++)
        THREAD_JOIN(team->helpers[i].thread);
    mutex_destroy(&team->mutex);
    condition_destroy(&team->wake);
    free(team->helpers);
    free(team);
}

long fm_counter_next(fm_counter *counter)
{
    return add(counter, 1) - 1;
}

int fm_turn_wait(counter *turn, long number, counter *stop)
{
    int spins = 0;
    while (load(turn) < number) {
        if (load(stop))
            return 0;
        pause_once(&spins);
    }
    return 1;
}

void fm_turn_pass(counter *turn, long number)
{
    store(turn, number);
}

int fm_claim_try(fm_claim *claim)
{
    return exchange(&claim->taken, 1) == 0;
}

void fm_claim_release(fm_claim *claim)
{
    exchange(&claim->taken, 0);
}
