/* A client that counts every request: what came of it, how long it took, who answered.

   load HOST PORT RATE ONESHOT KEEP THINK_MS OUT

   RATE new connections a second are due, each for one request; 0: as many as ONESHOT at a time can do. KEEP more
   connections are kept alive, and pause for THINK_MS after each response. Every request becomes a record (struct result)
   of the file OUT; each failure is told on stderr. On TERM no more requests are made, and it ends with the last response.

   A one-shot request is never made again. On a connection that has served a request before, the server may close while
   the next one is on its way: closed before the first byte of a response, it is made again on a new connection, as
   RFC 9112, 9.3.1 allows and real clients do. That is a record of its own (IDLE), and so is the second attempt. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum outcome { OK, REFUSED, RESET, CLOSED, TIMEOUT, BAD, OTHER, IDLE };
static const char *const names[] = {"ok", "refused", "reset", "closed", "timeout", "bad", "error", "idle"};

struct result {
    int64_t due, took; /* CLOCK_MONOTONIC and duration in ns */
    int32_t pid;       /* as the response tells */
    uint16_t port;     /* the client's */
    uint8_t keep, outcome;
};

enum state { FREE, PAUSED, CONNECTING, READING, ENDING };

struct connection {
    enum state state;
    int fd, keep, used, again;
    uint16_t port;
    int64_t due, wake; /* when the request was due; when the pause ends */
    size_t got, all;
    char data[2048];
};

#define SECOND 1000000000LL
#define PATIENCE (10 * SECOND)

static struct sockaddr_in server;
static struct connection *connections;
static int epoll, out, oneshot, total, busy, failures;
static int64_t think, now;
static volatile sig_atomic_t stopping;

static int64_t monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void stop(int signum)
{
    (void)signum;
    stopping = 1;
}

static void request(struct connection *c);

static void hang_up(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->used = 0;
}

/* The connection has nothing to do any more, or, kept alive, until its pause is over. */
static void rest(struct connection *c)
{
    busy--;
    if (!c->keep)
        hang_up(c);
    c->state = c->keep ? PAUSED : FREE;
    c->wake = now + think;
}

static void record(struct connection *c, enum outcome outcome)
{
    now = monotonic();
    const char *told = outcome == OK ? memmem(c->data, c->got, "pid ", 4) : NULL;
    struct result r = {c->due, now - c->due, told ? atoi(told + 4) : 0, c->port, c->keep, outcome};
    if (write(out, &r, sizeof r) != sizeof r)
        exit(3);
    if (outcome == OK || outcome == IDLE)
        return;
    if (failures++ < 100)
        fprintf(stderr, "%.6f %s: %s, port %d, request %s, %zu bytes of the response, after %.3f ms\n", now / 1e9,
                c->keep ? "keep-alive" : "one-shot", names[outcome], c->port,
                c->state == CONNECTING ? "not sent" : "sent", c->got, (now - c->due) / 1e6);
}

static void fail(struct connection *c, int error)
{
    int raced = c->keep && c->used && !c->got && (error == 0 || error == ECONNRESET || error == EPIPE);
    record(c, raced                    ? IDLE
              : error == 0             ? CLOSED
              : error == ECONNREFUSED  ? REFUSED
              : error == ECONNRESET || error == EPIPE ? RESET
              : error == ETIMEDOUT     ? TIMEOUT
                                       : OTHER);
    hang_up(c);
    if (raced)
        request(c);
    else
        rest(c);
}

static void send_request(struct connection *c)
{
    static const char once[] = "GET / HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n";
    static const char more[] = "GET / HTTP/1.1\r\nHost: load\r\n\r\n";
    const char *text = c->keep ? more : once;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    c->state = READING;
    c->got = c->all = 0;
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
    if (send(c->fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text))
        fail(c, errno);
}

/* Make the request that is due at c->due; `busy` counts it already. */
static void request(struct connection *c)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    struct sockaddr_in own;
    socklen_t size = sizeof own;
    int one = 1;

    c->got = c->all = 0;
    if (c->fd >= 0) {
        send_request(c);
        return;
    }
    c->state = CONNECTING;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int failed = connect(c->fd, (struct sockaddr *)&server, sizeof server) ? errno : 0;
    if (!getsockname(c->fd, (struct sockaddr *)&own, &size))
        c->port = ntohs(own.sin_port);
    if (failed && failed != EINPROGRESS) {
        fail(c, failed);
        return;
    }
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    if (!failed)
        send_request(c);
}

static void begin(struct connection *c, int64_t due)
{
    busy++;
    c->due = due;
    request(c);
}

/* How long the whole response is; 0: its head is not complete yet, -1: it is not what was asked for. */
static ssize_t length(struct connection *c)
{
    c->data[c->got] = 0;
    char *end = strstr(c->data, "\r\n\r\n");
    if (!end)
        return c->got >= sizeof c->data - 1 ? -1 : 0;
    char *field = strcasestr(c->data, "\r\ncontent-length:");
    if (strncmp(c->data, "HTTP/1.1 200", 12) || !field || field > end)
        return -1;
    size_t all = end + 4 - c->data + strtoul(field + 17, NULL, 10);
    return all < sizeof c->data ? (ssize_t)all : -1;
}

static void complete(struct connection *c)
{
    char *close = strcasestr(c->data, "\r\nconnection: close");
    record(c, OK);
    c->used = 1;
    if (!c->keep) {
        c->state = ENDING; /* whoever closes first keeps the port busy for a minute: let it be the server */
        return;
    }
    if (close)
        hang_up(c);
    rest(c);
}

static void happened(struct connection *c, unsigned events)
{
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            fail(c, error);
        else if (events & EPOLLOUT)
            send_request(c);
        return;
    }
    char ignored[256];
    int reading = c->state == READING;
    ssize_t n = recv(c->fd, reading ? c->data + c->got : ignored, reading ? sizeof c->data - 1 - c->got : sizeof ignored, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (!reading) { /* the end of a one-shot, or an idle connection that the server closes */
        if (c->state == ENDING)
            rest(c);
        else
            hang_up(c);
        return;
    }
    if (n <= 0) {
        fail(c, n ? errno : 0);
        return;
    }
    c->got += n;
    ssize_t all = length(c);
    if (all < 0) {
        record(c, BAD);
        hang_up(c);
        rest(c);
    } else if (all && c->got >= (size_t)all)
        complete(c);
}

static void give_up_late_ones(void)
{
    for (struct connection *c = connections; c < connections + total; c++) {
        if (c->state == ENDING && now - c->due > PATIENCE)
            rest(c);
        else if ((c->state == CONNECTING || c->state == READING) && now - c->due > PATIENCE) {
            c->used = 0;
            fail(c, ETIMEDOUT);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 8)
        return 2;
    double rate = atof(argv[3]);
    oneshot = atoi(argv[4]);
    total = oneshot + atoi(argv[5]);
    think = atof(argv[6]) * 1e6;
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    out = open(argv[7], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc(total, sizeof *connections);
    if (!inet_aton(argv[1], &server.sin_addr) || out < 0 || epoll < 0 || !connections)
        return 2;
    signal(SIGTERM, stop);
    now = monotonic();
    for (int i = 0; i < total; i++) {
        connections[i].fd = -1;
        connections[i].keep = i >= oneshot;
        connections[i].state = connections[i].keep ? PAUSED : FREE;
        connections[i].wake = now + (i * 37 % 100) * think / 100; /* spread */
    }
    int64_t due = now, interval = rate > 0 ? SECOND / rate : 0, look = now + SECOND / 10;
    int next = 0;
    while (!stopping || busy) {
        int64_t wake = look;
        for (int tried = 0; !stopping && tried < oneshot && (!interval || due <= now); tried++) {
            struct connection *c = &connections[next++ % oneshot];
            if (c->state != FREE)
                continue;
            begin(c, interval ? due : now);
            due += interval;
        }
        for (struct connection *c = connections + oneshot; !stopping && c < connections + total; c++) {
            if (c->state == PAUSED && c->wake <= now)
                begin(c, c->wake);
            if (c->state == PAUSED && c->wake < wake)
                wake = c->wake;
        }
        if (interval && due > now && due < wake)
            wake = due;
        now = monotonic();
        int64_t left = wake > now ? wake - now : 0;
        struct timespec timeout = {left / SECOND, left % SECOND};
        struct epoll_event events[256];
        int n = epoll_pwait2(epoll, events, 256, &timeout, NULL);
        now = monotonic();
        for (int i = 0; i < n; i++)
            happened(events[i].data.ptr, events[i].events);
        if (now >= look) {
            give_up_late_ones();
            look = now + SECOND / 10;
        }
    }
    return 0;
}
