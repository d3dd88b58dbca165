/* A web server that finishes what it accepted: the socket is descriptor 3, as sd_listen_fds(3) says.

   On TERM it accepts no more. A connection that has not been served yet gets its response; one that is kept alive and
   has nothing to read is closed, as servers do. It ends with the last of them. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTENER 3
#define MOST 4096

enum { NONE, FRESH, SERVED };

static char state[MOST]; /* of the connection with that descriptor */
static int open_now, going;
static char last_words[256], more_words[256];

static void drop(int fd)
{
    close(fd);
    state[fd] = NONE;
    open_now--;
}

/* Answer what there is to read; 0 when that is nothing. */
static int answer(int fd)
{
    char data[2048];
    ssize_t n = recv(fd, data, sizeof data - 1, 0);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0) {
        drop(fd);
        return 1;
    }
    data[n] = 0;
    int close_it = going || strcasestr(data, "\r\nconnection: close");
    const char *text = close_it ? last_words : more_words;
    ssize_t sent = send(fd, text, strlen(text), MSG_NOSIGNAL);
    state[fd] = SERVED;
    if (close_it || sent < 0)
        drop(fd);
    return 1;
}

static void say(char *text, size_t size, const char *more)
{
    char body[64];
    int n = snprintf(body, sizeof body, "pid %d\n", (int)getpid());
    snprintf(text, size, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s", n, more, body);
}

int main(void)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    int signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    say(last_words, sizeof last_words, "Connection: close\r\n");
    say(more_words, sizeof more_words, "");
    fcntl(LISTENER, F_SETFL, fcntl(LISTENER, F_GETFL) | O_NONBLOCK);
    struct epoll_event listen_event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = LISTENER};
    struct epoll_event signal_event = {.events = EPOLLIN, .data.fd = signals};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, LISTENER, &listen_event) || epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &signal_event))
        return 1;
    while (!going || open_now) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == signals && !going) {
                going = 1;
                epoll_ctl(epoll, EPOLL_CTL_DEL, LISTENER, NULL);
                epoll_ctl(epoll, EPOLL_CTL_DEL, signals, NULL);
                close(LISTENER);
                for (int other = 0; other < MOST; other++)
                    if (state[other] == SERVED && !answer(other))
                        drop(other);
                break; /* the rest of the events may be of connections that are closed now */
            } else if (fd == LISTENER) {
                int client = accept4(LISTENER, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (client < 0)
                    continue;
                if (client >= MOST) {
                    close(client);
                    continue;
                }
                struct epoll_event event = {.events = EPOLLIN, .data.fd = client};
                state[client] = FRESH;
                open_now++;
                epoll_ctl(epoll, EPOLL_CTL_ADD, client, &event);
            } else if (fd != signals)
                answer(fd);
        }
    }
    return 0;
}
