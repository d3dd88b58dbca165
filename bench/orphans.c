/* A storm of orphans for the init above us: orphans COUNT RESULT

   Makes COUNT orphans by double fork, as fast as one process can, and waits until all of them have exited (a pipe
   that each of them holds is closed) and no zombie is left in /proc. Writes to the file RESULT one line:

       elapsed_ns max_zombies zombies_left init_cpu_ns

   Must run in a pid namespace of its own: every zombie in /proc is taken for one of the storm's. */

#include <ctype.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLE_EVERY = 64, PATIENCE_S = 10 };

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* The state letter in /proc/PID/stat comes after the last ')': a command name may hold anything. */
static int count_zombies(void)
{
    DIR *proc = opendir("/proc");
    if (!proc)
        fail("orphans: cannot read /proc");
    int zombies = 0;
    for (struct dirent *entry; (entry = readdir(proc));) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        char path[300], text[512];
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file)
            continue; /* reaped since readdir */
        size_t length = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        text[length] = '\0';
        char *end = strrchr(text, ')');
        if (end && end[1] && end[2] == 'Z')
            zombies++;
    }
    closedir(proc);
    return zombies;
}

static int64_t init_cpu_ns(void)
{
    long long ns = -1;
    FILE *file = fopen("/proc/1/schedstat", "r");
    if (file) {
        if (fscanf(file, "%lld", &ns) != 1)
            ns = -1;
        fclose(file);
    }
    return ns;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int count = atoi(argv[1]), held[2], most = 0, left;
    if (pipe(held))
        fail("orphans: cannot make a pipe");

    int64_t start = now_ns();
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child < 0)
            fail("orphans: cannot fork");
        if (child == 0)
            _exit(fork() < 0); /* the grandchild leaves here too, with 0 */
        int status;
        if (waitpid(child, &status, 0) != child || status)
            fail("orphans: cannot fork an orphan");
        if (i % SAMPLE_EVERY == 0) {
            int zombies = count_zombies();
            if (zombies > most)
                most = zombies;
        }
    }
    close(held[1]);
    char nothing;
    if (read(held[0], &nothing, 1) != 0)
        fail("orphans: cannot wait for the orphans");
    int64_t deadline = now_ns() + PATIENCE_S * (int64_t)1000000000;
    while ((left = count_zombies()) > 0 && now_ns() < deadline)
        if (left > most)
            most = left;
    int64_t elapsed = now_ns() - start;

    FILE *result = fopen(argv[2], "w");
    if (!result)
        fail("orphans: cannot write the result");
    fprintf(result, "%lld %d %d %lld\n", (long long)elapsed, most, left, (long long)init_cpu_ns());
    return fclose(result) != 0;
}
