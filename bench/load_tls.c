/* TLS sessions as fast as they are answered; built and started by bench/load_tls.py.
 *
 * Each process has one session at a time: greeting, EHLO, STARTTLS, the handshake, EHLO,
 * with a login AUTH PLAIN and one message, QUIT. With "resume" each handshake but the
 * first of a process offers the ticket of the one before. The certificate is not
 * checked, which is the same work less for every server. The first second is not counted.
 *
 * Usage: load_tls PORT PROCESSES SECONDS RESUME [AUTH SENDER]
 * Each process writes "count resumed cpu_us" or "failed: why", one line.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP_US 1000000L
#define WAIT_S 30
#define REPLY_OCTETS_MAX 16384
#define LETTER_OCTETS 4096

static struct sockaddr_in server;
static const char *auth, *sender;
static char letter[LETTER_OCTETS + 64];

struct session {
    int fd;
    SSL *ssl;
};

static long now_us(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000L + at.tv_nsec / 1000;
}

static long cpu_us(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000L +
           used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

static void fail(const char *what, const char *said) {
    printf("failed: %s: %.80s\n", what, said);
    fflush(stdout);
    _exit(1);
}

/* Whether a whole reply is there: its last line has no hyphen behind the code. */
static int is_whole(const char *reply, size_t length) {
    if (length < 5 || reply[length - 1] != '\n') return 0;
    size_t at = length - 1;
    while (at > 0 && reply[at - 1] != '\n') at--;
    return length - at > 4 && reply[at + 3] != '-';
}

/* Say something, nothing if it is empty; read one reply, which must begin as wanted. */
static void ask(struct session *one, const char *command, const char *wanted) {
    char reply[REPLY_OCTETS_MAX + 1];
    size_t had = 0, length = strlen(command);
    if (length) {
        long put = one->ssl ? SSL_write(one->ssl, command, (int)length)
                            : send(one->fd, command, length, MSG_NOSIGNAL);
        if (put != (long)length) fail(command, "could not be sent");
    }
    while (!is_whole(reply, had)) {
        size_t room = REPLY_OCTETS_MAX - had;
        long got = one->ssl ? SSL_read(one->ssl, reply + had, (int)room)
                            : recv(one->fd, reply + had, room, 0);
        if (got <= 0) fail(length ? command : "greeting", "hung up");
        had += (size_t)got;
    }
    reply[had] = 0;
    if (strncmp(reply, wanted, 3)) fail(command, reply);
}

static void submit(struct session *one) {
    char command[512];
    snprintf(command, sizeof command, "AUTH PLAIN %s\r\n", auth);
    ask(one, command, "235");
    snprintf(command, sizeof command, "MAIL FROM:<%s>\r\n", sender);
    ask(one, command, "250");
    ask(one, "RCPT TO:<b@dst.test>\r\n", "250");
    ask(one, "DATA\r\n", "354");
    ask(one, letter, "250");
}

/* One session; returns whether its handshake was a resumed one. */
static int run_session(SSL_CTX *context, SSL_SESSION **known) {
    struct session one = {socket(AF_INET, SOCK_STREAM, 0), NULL};
    struct timeval wait = {WAIT_S, 0};
    int yes = 1;
    setsockopt(one.fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(one.fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (connect(one.fd, (struct sockaddr *)&server, sizeof server))
        fail("connect", "refused");
    ask(&one, "", "220");
    ask(&one, "EHLO src.test\r\n", "250");
    ask(&one, "STARTTLS\r\n", "220");
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, one.fd);
    if (known && *known) SSL_set_session(ssl, *known);
    if (SSL_connect(ssl) != 1)
        fail("handshake", ERR_reason_error_string(ERR_get_error()));
    one.ssl = ssl;
    ask(&one, "EHLO src.test\r\n", "250");
    if (auth) submit(&one);
    ask(&one, "QUIT\r\n", "221");
    int is_resumed = SSL_session_reused(ssl);
    if (known) { /* the tickets of TLS 1.3 came with the first reply */
        SSL_SESSION_free(*known);
        *known = SSL_get1_session(ssl);
    }
    SSL_shutdown(ssl);
    SSL_free(ssl);
    close(one.fd);
    return is_resumed;
}

static void run(double seconds, int resume) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_SESSION *known = NULL;
    long begin = now_us() + WARM_UP_US, end = begin + (long)(seconds * 1e6);
    long count = 0, resumed = 0, spent_us = -1, now;
    while ((now = now_us()) < end) {
        if (spent_us < 0 && now >= begin) spent_us = cpu_us();
        int is_resumed = run_session(context, resume ? &known : NULL);
        if (now >= begin) {
            count++;
            resumed += is_resumed;
        }
    }
    printf("%ld %ld %ld\n", count, resumed, cpu_us() - spent_us);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc != 5 && argc != 7) return 64;
    server.sin_family = AF_INET;
    server.sin_port = htons((unsigned short)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (argc == 7) auth = argv[5], sender = argv[6];
    strcpy(letter, "Subject: load\r\n\r\n");
    while (strlen(letter) < LETTER_OCTETS - 80)
        strcat(letter, "What is written here is of no importance, only that it is.\r\n");
    strcat(letter, ".\r\n");
    for (int left = atoi(argv[2]); left > 0; left--)
        if (fork() == 0) {
            run(atof(argv[3]), atoi(argv[4]));
            return 0;
        }
    int failed = 0, status;
    while (wait(&status) > 0) failed |= status;
    return failed ? 1 : 0;
}
