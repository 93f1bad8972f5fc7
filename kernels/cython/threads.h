/* A team of threads that work through one job together; each workspace owns its team.
 *
 * No global state: nothing to repair after fork, nothing to share between concurrent fits, with Python's GIL or without.  Between jobs the
 * helpers spin for a moment, then sleep.  Where the platform has no threads we know, a team has one member.
 */
#ifndef FASTMLP_THREADS_H
#define FASTMLP_THREADS_H

typedef struct fm_team fm_team;

/* A team of n members: the caller and n - 1 helpers.  NULL if memory or threads run out. */
fm_team *fm_team_new(int n);
void fm_team_free(fm_team *team);

/* Run work(arg, member) on all members and wait for all; the caller is member 0.  team NULL: the caller alone. */
void fm_team_run(fm_team *team, void (*work)(void *arg, int member), void *arg);

/* All members wait here for each other; what they wrote before is visible to all after.  team NULL: nothing. */
void fm_team_barrier(fm_team *team);

/* Pieces of a job that members take in turn: who comes late takes fewer.  All zeros: nobody has taken any. */
typedef struct {
    volatile long value;
    char padding[64 - sizeof(long)]; /* a cache line of its own */
} fm_counter;

/* The number of the next piece, from 0. */
long fm_counter_next(fm_counter *counter);

/* Turns of a job that members do one after the other.  All zeros: it is the turn of 0. */

/* Wait, awake, until the turns have come to `number`.  0 if *stop was set before. */
int fm_turn_wait(fm_counter *turn, long number, fm_counter *stop);

/* Make it the turn of `number`, who sees what was written before; or set a counter that stops all who wait. */
void fm_turn_pass(fm_counter *turn, long number);

/* Who may use a workspace: one caller at a time.  All zeros: nobody has claimed it. */
typedef struct {
    volatile long taken;
} fm_claim;

/* 1 if the caller has it now, 0 if another caller has it.  Never waits. */
int fm_claim_try(fm_claim *claim);
void fm_claim_release(fm_claim *claim);

#endif
