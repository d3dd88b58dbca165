/* A worker that writes lines and then waits: `lines COUNT text|json`.

   It reports 16-byte records {pid, CLOCK_MONOTONIC in ns} to the FIFO named by BENCH_FIFO: when it begins, which it does
   0.3 s after its start, so that its master is at rest, and when all lines are written. Lines have about
   100 bytes and a number; 32 go into one write, as from a program whose output is buffered. */

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 32, LONGEST = 200 };

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int report(int fd)
{
    int64_t record[2] = {getpid(), now()};
    return write(fd, record, sizeof record) == sizeof record;
}

static int flush(const char *from, size_t size)
{
    while (size > 0) {
        ssize_t written = write(1, from, size);
        if (written < 0)
            return 0;
        from += written;
        size -= written;
    }
    return 1;
}

int main(int argc, char **argv)
{
    const char *path = getenv("BENCH_FIFO");
    int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0 || argc != 3)
        return 1;
    long count = atol(argv[1]);
    const char *format = strcmp(argv[2], "json") == 0
        ? "{\"level\": \"info\", \"message\": \"GET /items/%08ld HTTP/1.1\", \"status\": 200, \"bytes\": 5120, \"ms\": 1.7}\n"
        : "127.0.0.1 - - [10/Oct/2026:13:55:36 +0000] \"GET /items/%08ld HTTP/1.1\" 200 5120 \"-\" \"client/1.0\"\n";
    char buffer[AT_ONCE * LONGEST];
    size_t used = 0;
    usleep(300000);
    if (!report(fd))
        return 1;
    for (long number = 0; number < count; number++) {
        used += sprintf(buffer + used, format, number);
        if (number % AT_ONCE == AT_ONCE - 1 || number == count - 1) {
            if (!flush(buffer, used))
                return 1;
            used = 0;
        }
    }
    if (!report(fd))
        return 1;
    for (;;)
        pause();
}
