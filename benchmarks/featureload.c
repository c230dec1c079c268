/* featureload: loads that redis-benchmark does not know.
 *
 *     featureload fanout PORT SUBSCRIBERS MESSAGES WINDOW BYTES    one publisher, many subscribers of one channel
 *     featureload multi PORT CLIENTS TRANSACTIONS COMMANDS         MULTI, so many SETs, EXEC, written in one piece
 *     featureload handover PORT PAIRS ROUNDS                       an element pushed to a consumer that waits in BLPOP
 *     featureload across PORT CLIENTS OPERATIONS KIND              keys on two of four shards, each client's own: 0 SUNION,
 *                                                                  1 SUNIONSTORE, 2 RENAME, 3 MULTI of two SETs
 *
 * One thread. It prints the same two rows of CSV as redis-benchmark. What is counted: deliveries, transactions, elements.
 * Latency: from PUBLISH until the last subscriber has the message; of a whole transaction; from RPUSH until BLPOP's reply.
 *
 * What must stay true: every byte that comes is compared with what must come, the number of receivers that PUBLISH tells
 * included; anything else ends the run with a line "Error from server: ..." and code 1. It is written in C because it
 * shares a core with what is measured.
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
#define TEXT_BYTES (1 << 16)
#define CLIENTS_MAX 10000
#define EVENTS 512
#define SETTLE_NS 2000000L

/* Somebody to whom one text is sent again and again, whole. */
struct client {
    int fd;
    size_t at; /* how much of the current text has come */
    long done; /* texts that have come */
    double sent_at;
};

static double *latencies;
static long latency_count;

static void fail(const char *what, const char *detail) {
    printf("Error from server: %s %s\n", what, detail);
    exit(1);
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int connected(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_sec = 10};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect:", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static void send_all(int fd, const char *from, size_t bytes) {
    while (bytes > 0) {
        ssize_t done = send(fd, from, bytes, MSG_NOSIGNAL);
        if (done < 0 && errno != EINTR) fail("send:", strerror(errno));
        if (done > 0) from += done, bytes -= (size_t)done;
    }
}

/* Compares what came with `text`, over and over; how many times it was whole. */
static long compare(struct client *c, const char *data, size_t bytes, const char *text, size_t text_bytes) {
    long whole = 0;
    while (bytes > 0) {
        size_t left = text_bytes - c->at, take = bytes < left ? bytes : left;
        if (memcmp(data, text + c->at, take) != 0) fail("another reply:", "not what one server answers");
        data += take, bytes -= take, c->at += take;
        if (c->at == text_bytes) c->at = 0, whole++;
    }
    return whole;
}

/* Reads until one `text` is whole. */
static void expect(struct client *c, const char *text) {
    static char data[READ_BYTES];
    for (size_t length = strlen(text), missing = length; missing > 0;) {
        ssize_t bytes = recv(c->fd, data, missing, 0);
        if (bytes <= 0) fail("no reply:", bytes < 0 ? strerror(errno) : "closed");
        compare(c, data, (size_t)bytes, text, length);
        missing -= (size_t)bytes;
    }
}

static void note(double since) { latencies[latency_count++] = now_us() - since; }

static int ready_on(int poll, struct epoll_event *events) {
    int ready = epoll_wait(poll, events, EVENTS, 10000);
    if (ready == 0) fail("nothing came within 10 seconds", "");
    return ready < 0 ? 0 : ready;
}

static void watch_all(int poll, struct client *clients, long count) {
    for (long i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, clients[i].fd, &event) < 0) fail("epoll_ctl:", strerror(errno));
    }
}

static void fill_text(char *to, long bytes) {
    memset(to, 'x', (size_t)bytes);
    to[bytes] = 0;
}

static double fanout(int port, struct client *subscribers, long count, long messages, long window, long bytes) {
    static char data[READ_BYTES], payload[TEXT_BYTES], order[TEXT_BYTES + 128], text[TEXT_BYTES + 128], told[32];
    struct epoll_event events[EVENTS];
    long *missing = calloc((size_t)window, sizeof *missing), sent = 0, finished = 0;
    double *sent_at = calloc((size_t)window, sizeof *sent_at);
    struct client publisher = {.fd = connected(port)};
    int poll = epoll_create1(EPOLL_CLOEXEC);
    if (!missing || !sent_at || bytes >= TEXT_BYTES) exit(2);
    fill_text(payload, bytes);
    size_t order_bytes = (size_t)sprintf(order, "*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$%ld\r\n%s\r\n", bytes, payload);
    size_t text_bytes = (size_t)sprintf(text, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$%ld\r\n%s\r\n", bytes, payload);
    size_t told_bytes = (size_t)sprintf(told, ":%ld\r\n", count);
    for (long i = 0; i < count; i++) send_all(subscribers[i].fd, "*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n", 31);
    for (long i = 0; i < count; i++) expect(&subscribers[i], "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    watch_all(poll, subscribers, count);
    watch_all(poll, &publisher, 1);
    double start = now_us();
    while (finished < messages || publisher.done < messages) {
        for (; sent < messages && sent - finished < window; sent++) {
            missing[sent % window] = count;
            sent_at[sent % window] = now_us();
            send_all(publisher.fd, order, order_bytes);
        }
        int ready = ready_on(poll, events);
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            ssize_t got = recv(c->fd, data, sizeof data, 0);
            if (got <= 0) fail("the connection was closed", got < 0 ? strerror(errno) : "");
            if (c == &publisher) {
                c->done += compare(c, data, (size_t)got, told, told_bytes);
                continue;
            }
            for (long whole = compare(c, data, (size_t)got, text, text_bytes); whole > 0; whole--, c->done++) {
                if (c->done >= sent) fail("a message more than was published", "");
                missing[c->done % window]--;
            }
        }
        for (; finished < sent && missing[finished % window] == 0; finished++) note(sent_at[finished % window]);
    }
    return now_us() - start;
}

static double multi(struct client *clients, long count, long transactions, long commands) {
    static char data[READ_BYTES], order[TEXT_BYTES], text[TEXT_BYTES];
    struct epoll_event events[EVENTS];
    long unsent = transactions, missing = transactions;
    int poll = epoll_create1(EPOLL_CLOEXEC);
    char *end = text + sprintf(text, "+OK\r\n");
    if (commands * 64 > TEXT_BYTES - 64) exit(2);
    for (long i = 0; i < commands; i++) end += sprintf(end, "+QUEUED\r\n");
    end += sprintf(end, "*%ld\r\n", commands);
    for (long i = 0; i < commands; i++) end += sprintf(end, "+OK\r\n");
    watch_all(poll, clients, count);
    double start = now_us();
    for (long turn = 0; missing > 0; turn++) {
        int ready = turn == 0 ? (int)count : ready_on(poll, events);
        for (int i = 0; i < ready; i++) {
            struct client *c = turn == 0 ? &clients[i] : events[i].data.ptr;
            if (turn > 0) {
                ssize_t got = recv(c->fd, data, sizeof data, 0);
                if (got <= 0) fail("the connection was closed", got < 0 ? strerror(errno) : "");
                if (compare(c, data, (size_t)got, text, (size_t)(end - text)) == 0) continue;
                note(c->sent_at);
                missing--;
            }
            if (unsent == 0) continue;
            char *to = order + sprintf(order, "*1\r\n$5\r\nMULTI\r\n");
            for (long k = 0; k < commands; k++)
                to += sprintf(to, "*3\r\n$3\r\nSET\r\n$10\r\n{%06ld}%02ld\r\n$3\r\nxyz\r\n", unsent % 100000, k % 100);
            to += sprintf(to, "*1\r\n$4\r\nEXEC\r\n");
            unsent--;
            c->sent_at = now_us();
            send_all(c->fd, order, (size_t)(to - order));
        }
    }
    return now_us() - start;
}

static double handover(int port, struct client *consumers, long pairs, long rounds) {
    struct timespec settle = {.tv_nsec = SETTLE_NS};
    struct client *producers = calloc((size_t)pairs, sizeof *producers);
    char text[128];
    double spent = 0;
    if (!producers) exit(2);
    for (long i = 0; i < pairs; i++) producers[i].fd = connected(port);
    for (long round = 0; round < rounds; round++) {
        for (long i = 0; i < pairs; i++) {
            int bytes = sprintf(text, "*3\r\n$5\r\nBLPOP\r\n$6\r\nq%05ld\r\n$1\r\n9\r\n", i);
            send_all(consumers[i].fd, text, (size_t)bytes);
        }
        /* All wait by then: what was sent before these questions has been read before them. */
        for (long i = 0; i < pairs; i++) {
            send_all(producers[i].fd, "*1\r\n$4\r\nPING\r\n", 14);
            expect(&producers[i], "+PONG\r\n");
        }
        nanosleep(&settle, NULL);
        double start = now_us();
        for (long i = 0; i < pairs; i++) {
            int bytes = sprintf(text, "*3\r\n$5\r\nRPUSH\r\n$6\r\nq%05ld\r\n$3\r\nxyz\r\n", i);
            double sent_at = now_us();
            send_all(producers[i].fd, text, (size_t)bytes);
            sprintf(text, "*2\r\n$6\r\nq%05ld\r\n$3\r\nxyz\r\n", i);
            expect(&consumers[i], text);
            note(sent_at);
            expect(&producers[i], ":1\r\n");
        }
        spent += now_us() - start;
    }
    return spent;
}

/* Which of four shards has a key: CRC16 (XMODEM), as Redis Cluster's slots, in four equal ranges. */
static int shard_of(const char *key) {
    uint16_t crc = 0;
    for (; *key; key++) {
        crc ^= (uint16_t)((uint8_t)*key << 8);
        for (int bit = 0; bit < 8; bit++) crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return (crc & 16383) / 4096;
}

/* Two keys of a client, on two shards, with the lengths that every key has. */
static void pair_of(int client, char *one, char *two) {
    int chance = client % CLIENTS_MAX * 1000;
    sprintf(one, "k%07d", chance);
    do sprintf(two, "k%07d", ++chance);
    while (shard_of(two) == shard_of(one));
}

static double across(struct client *clients, long count, long operations, long kind) {
    static char data[READ_BYTES], order[1024];
    static const char *texts[] = {"*1\r\n$1\r\na\r\n", ":1\r\n", "+OK\r\n", "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n"};
    struct epoll_event events[EVENTS];
    char one[24], two[24];
    long unsent = operations, missing = operations;
    int poll = epoll_create1(EPOLL_CLOEXEC);
    if (kind < 0 || kind > 3) exit(2);
    for (long i = 0; i < count; i++) {
        pair_of((int)i, one, two);
        int bytes = sprintf(order, "*2\r\n$3\r\nDEL\r\n$8\r\n%s\r\n*2\r\n$3\r\nDEL\r\n$8\r\n%s\r\n", one, two);
        bytes += sprintf(order + bytes, "*3\r\n$4\r\nSADD\r\n$8\r\n%s\r\n$1\r\na\r\n*3\r\n$4\r\nSADD\r\n$8\r\n%s\r\n$1\r\na\r\n", one, two);
        send_all(clients[i].fd, order, (size_t)bytes);
        /* Two numbers that depend on what was there, then two that do not. */
        for (int left = 4 * 4; left > 0;) {
            ssize_t got = recv(clients[i].fd, data, (size_t)left, 0);
            if (got <= 0) fail("no reply:", "while keys were made");
            left -= (int)got;
        }
    }
    watch_all(poll, clients, count);
    double start = now_us();
    for (long turn = 0; missing > 0; turn++) {
        int ready = turn == 0 ? (int)count : ready_on(poll, events);
        for (int i = 0; i < ready; i++) {
            struct client *c = turn == 0 ? &clients[i] : events[i].data.ptr;
            if (turn > 0) {
                ssize_t got = recv(c->fd, data, sizeof data, 0);
                if (got <= 0) fail("the connection was closed", got < 0 ? strerror(errno) : "");
                if (compare(c, data, (size_t)got, texts[kind], strlen(texts[kind])) == 0) continue;
                note(c->sent_at);
                missing--, c->done++;
            }
            if (unsent == 0) continue;
            pair_of((int)(c - clients), one, two);
            const char *from = c->done % 2 ? two : one, *to = c->done % 2 ? one : two;
            int bytes = kind == 0   ? sprintf(order, "*3\r\n$6\r\nSUNION\r\n$8\r\n%s\r\n$8\r\n%s\r\n", one, two)
                        : kind == 1 ? sprintf(order, "*4\r\n$11\r\nSUNIONSTORE\r\n$8\r\n%s\r\n$8\r\n%s\r\n$8\r\n%s\r\n", one, one, two)
                        : kind == 2 ? sprintf(order, "*3\r\n$6\r\nRENAME\r\n$8\r\n%s\r\n$8\r\n%s\r\n", from, to)
                                    : sprintf(order, "*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$8\r\n%s\r\n$3\r\nxyz\r\n*3\r\n$3\r\nSET\r\n$8\r\n%s\r\n$3\r\nxyz\r\n*1\r\n$4\r\nEXEC\r\n", one, two);
            unsent--;
            c->sent_at = now_us();
            send_all(c->fd, order, (size_t)bytes);
        }
    }
    return now_us() - start;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double latency_ms(double share) { return latencies[(long)(share * (double)(latency_count - 1))] / 1000.0; }

int main(int argc, char **argv) {
    long number[6] = {0}, counted;
    double took;
    for (int i = 2; i < argc && i < 8; i++) number[i - 2] = atol(argv[i]);
    int is_fanout = argc == 7 && strcmp(argv[1], "fanout") == 0;
    int is_multi = argc == 6 && strcmp(argv[1], "multi") == 0;
    int is_handover = argc == 5 && strcmp(argv[1], "handover") == 0;
    int is_across = argc == 6 && strcmp(argv[1], "across") == 0;
    long count = number[1], times = number[2];
    if ((!is_fanout && !is_multi && !is_handover && !is_across) || count < 1 || count > CLIENTS_MAX || times < 1 || (!is_handover && !is_across && number[3] < 1)) {
        fprintf(stderr, "featureload fanout PORT SUBSCRIBERS MESSAGES WINDOW BYTES\n"
                        "featureload multi PORT CLIENTS TRANSACTIONS COMMANDS\n"
                        "featureload handover PORT PAIRS ROUNDS\n"
                        "featureload across PORT CLIENTS OPERATIONS KIND\n");
        return 2;
    }
    counted = is_multi || is_across ? times : count * times;
    struct client *clients = calloc((size_t)count, sizeof *clients);
    latencies = calloc((size_t)counted, sizeof *latencies);
    if (!clients || !latencies) return 2;
    for (long i = 0; i < count; i++) clients[i].fd = connected((int)number[0]);
    if (is_fanout) took = fanout((int)number[0], clients, count, times, number[3], number[4]);
    else if (is_multi) took = multi(clients, count, times, number[3]);
    else if (is_across) took = across(clients, count, times, number[3]);
    else took = handover((int)number[0], clients, count, times);
    qsort(latencies, (size_t)latency_count, sizeof *latencies, ascending);
    printf("\"test\",\"rps\",\"p50_latency_ms\",\"p99_latency_ms\"\n");
    printf("\"%s\",\"%.2f\",\"%.3f\",\"%.3f\"\n", argv[1], (double)counted / took * 1e6, latency_ms(0.5), latency_ms(0.99));
    return 0;
}
