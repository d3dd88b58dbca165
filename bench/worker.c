/* A worker that does nothing: it reports its pid and the time at which it runs, then waits for a signal.

   The report is one 16-byte record {pid, CLOCK_MONOTONIC in ns} written to the FIFO named by BENCH_FIFO:
   small enough to be atomic, and stamped here so that the delay of the reader is not part of the number. */

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t record[2] = {getpid(), (int64_t)now.tv_sec * 1000000000 + now.tv_nsec};

    const char *path = getenv("BENCH_FIFO");
    int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0 || write(fd, record, sizeof record) != sizeof record)
        return 1;
    close(fd);
    for (;;)
        pause();
}
