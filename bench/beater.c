/* A worker that beats: beater BOOT_MS STOP_MS

   It needs BOOT_MS to be ready and STOP_MS to go after TERM, and says WATCHDOG=1 every second, see sd_notify(3). When it
   is ready it reports as worker.c does: {pid, CLOCK_MONOTONIC in ns}. USR1 makes it hang: it beats no more. On ABRT it
   reports {pid, how many ns ago its last beat was} and ends. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static int fifo, notify;

static int64_t monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void report(int64_t value)
{
    int64_t record[2] = {getpid(), value};
    if (write(fifo, record, sizeof record) != sizeof record)
        exit(1);
}

static int64_t say(const char *text)
{
    if (send(notify, text, strlen(text), 0) < 0)
        exit(1);
    return monotonic();
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = getenv("NOTIFY_SOCKET"), *path = getenv("BENCH_FIFO");
    if (argc != 3 || !name || !path || strlen(name) >= sizeof address.sun_path)
        return 2;
    memcpy(address.sun_path, name, strlen(name));
    if (*name == '@')
        address.sun_path[0] = 0;
    notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    fifo = open(path, O_WRONLY | O_CLOEXEC);
    if (fifo < 0 || connect(notify, (void *)&address, offsetof(struct sockaddr_un, sun_path) + strlen(name)))
        return 2;

    usleep(atoi(argv[1]) * 1000); /* a signal ends it here, as it does a program that is being loaded */
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGUSR1);
    sigaddset(&awaited, SIGABRT);
    sigaddset(&awaited, SIGTERM);
    sigprocmask(SIG_BLOCK, &awaited, NULL);
    int64_t last = say("READY=1"), next = last + SECOND;
    report(last);
    int hung = 0;
    for (;;) {
        int64_t left = hung ? 3600 * SECOND : next - monotonic();
        struct timespec timeout = {left > 0 ? left / SECOND : 0, left > 0 ? left % SECOND : 0};
        int signum = sigtimedwait(&awaited, NULL, &timeout);
        if (signum == SIGUSR1)
            hung = 1;
        else if (signum == SIGABRT) {
            report(monotonic() - last);
            return 0;
        } else if (signum == SIGTERM) {
            usleep(atoi(argv[2]) * 1000);
            return 0;
        } else if (!hung && monotonic() >= next) {
            last = say("WATCHDOG=1");
            next += SECOND;
        }
    }
}
