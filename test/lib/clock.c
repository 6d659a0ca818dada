/* What it is: a wall clock that a test sets: the time of day is off by what a file says, in microseconds.
 * Who calls it: clock.py builds it and has it preloaded (LD_PRELOAD).
 * Never: touches a clock that only runs on (CLOCK_MONOTONIC), or waits. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_us;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("EVENTBUS_TEST_CLOCK");
    int file = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(NULL, sizeof *offset_us, PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) offset_us = at;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (real_clock_gettime == NULL) begin();
    int result = real_clock_gettime(clock, now);
    if (result != 0 || offset_us == NULL || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
    int64_t nanoseconds = now->tv_nsec + *offset_us % 1000000 * 1000;
    now->tv_sec += *offset_us / 1000000 + nanoseconds / 1000000000;
    now->tv_nsec = nanoseconds % 1000000000;
    if (now->tv_nsec < 0) {
        now->tv_nsec += 1000000000;
        --now->tv_sec;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec fine;
    int result = clock_gettime(CLOCK_REALTIME, &fine);
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return result;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to != NULL) *to = now.tv_sec;
    return now.tv_sec;
}
