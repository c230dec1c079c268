/* memload: a load generator for the memcached text protocol, in the manner of redis-benchmark.
 *
 *     memload PORT CLIENTS REQUESTS PIPELINE KEYS PREFIX KEYS_PER_REQUEST VALUE_BYTES get|set
 *
 * One thread, one epoll. Each client sends PIPELINE requests in one write, waits for all their replies, and goes on, until
 * REQUESTS have been sent by all together. Keys are PREFIX and twelve digits, drawn anew for each. It prints the same two
 * rows of CSV as redis-benchmark; latency is that of a whole pipeline, as there.
 *
 * What must stay true: every reply is parsed to its end; a miss, or anything but VALUE ... END and STORED, ends the run
 * with a line "Error from server: ..." and code 1. It is written in C because it shares a core with what is measured.
 * Rejected: memcaslap of libmemcached: it draws keys of its own that have to be written first, and does not pipeline.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (1 << 16)
#define LINE_MAX_BYTES 512
#define CLIENTS_MAX 10000
#define LATENCY_US_MAX 1000000 /* longer ones count as this long */
#define EVENTS 512

enum where { IN_LINE, IN_VALUE };

struct client {
    int fd;
    long waiting;     /* replies that are still to come */
    enum where where; /* in a line of a reply, or in the block of a value */
    long skip;        /* bytes of the block that are still to come, its CR LF included */
    int values;       /* VALUE lines of the present reply */
    int line_bytes;
    double sent_at;
    char line[LINE_MAX_BYTES];
};

static long requests, unsent, pipeline, keys, keys_per_request, value_bytes;
static int is_get;
static const char *prefix;
static char *value, *batch;
static uint32_t *latencies;
static long latency_count;
static uint64_t chance = 88172645463325252ULL;

static void fail(const char *what, const char *detail) {
    printf("Error from server: %s %s\n", what, detail);
    exit(1);
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

/* xorshift64: good enough to draw keys, and costs nothing. */
static long draw(void) {
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (long)(chance % (uint64_t)keys);
}

static char *put(char *to, const char *from, size_t bytes) {
    memcpy(to, from, bytes);
    return to + bytes;
}

static char *put_key(char *to) {
    long number = draw();
    to = put(to, prefix, strlen(prefix));
    for (int digit = 11; digit >= 0; digit--, number /= 10) to[digit] = (char)('0' + number % 10);
    return to + 12;
}

static char *put_request(char *to) {
    if (is_get) {
        to = put(to, "get", 3);
        for (long i = 0; i < keys_per_request; i++) {
            *to++ = ' ';
            to = put_key(to);
        }
        return put(to, "\r\n", 2);
    }
    to = put_key(put(to, "set ", 4));
    to += sprintf(to, " 0 0 %ld\r\n", value_bytes);
    return put(put(to, value, (size_t)value_bytes), "\r\n", 2);
}

/* The next batch of a client, or nothing when all has been sent. The socket is blocking: a batch is small. */
static void send_batch(struct client *c) {
    char *end = batch;
    long count = unsent < pipeline ? unsent : pipeline;
    if (count == 0) return;
    for (long i = 0; i < count; i++) end = put_request(end);
    unsent -= count;
    c->waiting = count;
    c->sent_at = now_us();
    for (char *from = batch; from < end;) {
        ssize_t done = send(c->fd, from, (size_t)(end - from), MSG_NOSIGNAL);
        if (done < 0 && errno != EINTR) fail("send:", strerror(errno));
        if (done > 0) from += done;
    }
}

static void reply_done(struct client *c) {
    if (is_get && c->values != keys_per_request) fail("a key was not found", "");
    c->values = 0;
    if (c->waiting-- == 0) fail("more replies than requests", "");
}

static void line_done(struct client *c) {
    long bytes;
    c->line[c->line_bytes] = 0;
    c->line_bytes = 0;
    if (is_get && sscanf(c->line, "VALUE %*s %*s %ld", &bytes) == 1) {
        if (bytes != value_bytes) fail("a value of another length:", c->line);
        c->values++;
        c->where = IN_VALUE;
        c->skip = bytes + 2;
    } else if (strcmp(c->line, is_get ? "END\r" : "STORED\r") == 0) {
        reply_done(c);
    } else {
        fail("unexpected reply:", c->line);
    }
}

static void received(struct client *c, const char *data, long bytes) {
    while (bytes > 0) {
        long take;
        if (c->where == IN_VALUE) {
            take = bytes < c->skip ? bytes : c->skip;
            c->skip -= take;
            if (c->skip == 0) c->where = IN_LINE;
        } else {
            const char *end = memchr(data, '\n', (size_t)bytes);
            long part = end ? end - data : bytes;
            take = end ? part + 1 : part;
            if (c->line_bytes + part >= LINE_MAX_BYTES) fail("a line without an end", "");
            memcpy(c->line + c->line_bytes, data, (size_t)part);
            c->line_bytes += (int)part;
            if (end) line_done(c);
        }
        data += take;
        bytes -= take;
    }
}

static void connect_client(struct client *c, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect:", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static long answer(int poll) {
    static char data[READ_BYTES];
    struct epoll_event events[EVENTS];
    long replies = 0;
    int ready = epoll_wait(poll, events, EVENTS, 10000);
    if (ready == 0) fail("no reply within 10 seconds", "");
    for (int i = 0; i < ready; i++) {
        struct client *c = events[i].data.ptr;
        long before = c->waiting;
        ssize_t bytes = recv(c->fd, data, sizeof data, 0);
        if (bytes <= 0) fail("the connection was closed", bytes < 0 ? strerror(errno) : "");
        received(c, data, bytes);
        replies += before - c->waiting;
        if (c->waiting == 0) {
            double took = now_us() - c->sent_at;
            latencies[latency_count++] = took < LATENCY_US_MAX ? (uint32_t)took : LATENCY_US_MAX;
            send_batch(c);
        }
    }
    return replies;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double latency_ms(double share) {
    return latencies[(long)(share * (double)(latency_count - 1))] / 1000.0;
}

int main(int argc, char **argv) {
    if (argc != 10) {
        fprintf(stderr, "memload PORT CLIENTS REQUESTS PIPELINE KEYS PREFIX KEYS_PER_REQUEST VALUE_BYTES get|set\n");
        return 2;
    }
    int port = atoi(argv[1]);
    long count = atol(argv[2]);
    requests = unsent = atol(argv[3]);
    pipeline = atol(argv[4]);
    keys = atol(argv[5]);
    prefix = argv[6];
    keys_per_request = atol(argv[7]);
    value_bytes = atol(argv[8]);
    is_get = strcmp(argv[9], "get") == 0;
    if (count < 1 || count > CLIENTS_MAX || requests < 1 || pipeline < 1 || keys < 1 || value_bytes < 1) return 2;

    size_t request_bytes = 64 + (size_t)keys_per_request * (strlen(prefix) + 16) + (size_t)value_bytes;
    struct client *clients = calloc((size_t)count, sizeof *clients);
    batch = malloc(request_bytes * (size_t)pipeline);
    value = malloc((size_t)value_bytes);
    latencies = calloc((size_t)requests + (size_t)count, sizeof *latencies);
    if (!clients || !batch || !value || !latencies) return 2;
    memset(value, 'x', (size_t)value_bytes);

    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (long i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
        connect_client(&clients[i], port);
        if (epoll_ctl(poll, EPOLL_CTL_ADD, clients[i].fd, &event) < 0) fail("epoll_ctl:", strerror(errno));
    }
    double start = now_us();
    for (long i = 0; i < count; i++) send_batch(&clients[i]);
    for (long missing = requests; missing > 0;) missing -= answer(poll);
    double took = now_us() - start;

    qsort(latencies, (size_t)latency_count, sizeof *latencies, ascending);
    printf("\"test\",\"rps\",\"p50_latency_ms\",\"p99_latency_ms\"\n");
    printf("\"%s\",\"%.2f\",\"%.3f\",\"%.3f\"\n", argv[9], (double)requests / took * 1e6, latency_ms(0.5), latency_ms(0.99));
    return 0;
}
