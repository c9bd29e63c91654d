/* podwire's executable: hands a CNI call to the daemon and prints the answer (PROTOCOL.md).
 *
 * Static, no dependency beyond libc. All buffers are sized by limits checked before use.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SOCKET_PATH "/run/podwire/podwire.sock"
#define VERSION 2u
#define STRINGS_MAX (1u << 20)
#define STDIN_MAX ((4u << 20) + 1u)
#define STDOUT_MAX (16u << 20)
#define STDERR_MAX (1u << 20)
#ifndef BEGIN_SECONDS /* tests wait less */
#define BEGIN_SECONDS 10
#endif
#ifndef REPLY_SECONDS
#define REPLY_SECONDS 115
#endif
#define CALLER_ENV "CALLER_" /* before the names of variables that Python hands on, and does not obey */
#define TRY_AGAIN 11
#define IO_FAILURE 5
#define INVALID_ENVIRONMENT 4
#define NOT_AVAILABLE 50

extern char **environ;

struct request {
    char magic[4];
    uint32_t version, strings, input, netns_errno;
};

struct reply {
    char magic[4];
    uint32_t version, status, out, err;
};

static int write_all(int fd, const char *data, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

/* Milliseconds. */
static int64_t now(void) {
    struct timespec time = {0};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Let what is done with a socket next end by a time. option: SO_RCVTIMEO or SO_SNDTIMEO. */
static int limit(int fd, int option, int64_t until) {
    int64_t left = until - now();
    struct timeval time = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};
    return left <= 0 ? -1 : setsockopt(fd, SOL_SOCKET, option, &time, sizeof time);
}

/* Bytes from the daemon, until a time however they trickle in. */
static int read_all(int fd, void *into, size_t size, int64_t until) {
    char *at = into;
    while (size > 0) {
        if (limit(fd, SO_RCVTIMEO, until) < 0)
            return -1;
        ssize_t n = read(fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

/* One CNI error object, of texts that need no escapes; the exit status of the shim. */
static int fail(int code, const char *msg, const char *details) {
    char body[1024];
    int size = snprintf(body, sizeof body,
                        "{\n  \"cniVersion\": \"1.1.0\",\n  \"code\": %d,\n  \"msg\": \"%s\"%s%s%s\n}\n",
                        code, msg, details ? ",\n  \"details\": \"" : "", details ? details : "",
                        details ? "\"" : "");
    if (size > 0 && (size_t)size < sizeof body)
        (void)write_all(STDOUT_FILENO, body, (size_t)size);
    return 1;
}

static const char *base_name(const char *path) {
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash ? slash + 1 : path ? path : "podwire";
}

/* Python's environment: the caller's, under names that neither the dynamic loader nor Python obeys.
 * LD_LIBRARY_PATH and its like are the runtime's business, and that of the plugins that Python calls. */
static char **python_environment(void) {
    size_t count = 0;
    while (environ[count])
        count++;
    char **fresh = calloc(count + 1, sizeof *fresh);
    for (size_t n = 0; fresh && n < count; n++) {
        int plain = strncmp(environ[n], "CNI_", 4) == 0 || strncmp(environ[n], "PODWIRE_", 8) == 0 ||
                    strncmp(environ[n], "PATH=", 5) == 0;
        if (plain)
            fresh[n] = environ[n];
        else if (asprintf(&fresh[n], CALLER_ENV "%s", environ[n]) < 0)
            return NULL;
    }
    return fresh;
}

/* The Python that podwire was installed with: beside the shim. Returns only where there is none. */
static void run_python(const char *executable, const char *verb, const char *program, int argc,
                       char **argv) {
    char python[PATH_MAX + sizeof "python3"];
    const char *slash = strrchr(executable, '/');
    if (!slash)
        return;
    snprintf(python, sizeof python, "%.*s/python3", (int)(slash - executable), executable);
    char **arguments = calloc((size_t)argc + 7, sizeof *arguments), **env = python_environment();
    if (!arguments || !env || access(python, X_OK) != 0)
        return;
    const char *const head[] = {python, "-I", "-m", "cni_plugin", verb, program};
    int n = 0;
    for (; n < 6; n++)
        arguments[n] = (char *)head[n];
    for (int i = 1; i < argc; i++)
        arguments[n++] = argv[i];
    execve(python, arguments, env);
}

/* Out of the way of stdin, stdout and stderr, which the caller may have closed. */
static int above_stderr(int fd) {
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(fd);
    return moved;
}

/* stdin as it came, once more: what was read of it, in a file that the next program starts with. */
static int put_back(const char *input, uint32_t size) {
    int fd = above_stderr(memfd_create("stdin", MFD_CLOEXEC));
    if (fd < 0)
        return -1;
    int done = write_all(fd, input, size) < 0 || lseek(fd, 0, SEEK_SET) < 0 ||
               dup2(fd, STDIN_FILENO) < 0;
    close(fd);
    return done ? -1 : 0;
}

/* Python itself, where the daemon has not begun the call; why: for the caller, where there is none. */
static int fall_back(const char *program, const char *executable, const char *input,
                     uint32_t size, const char *why, const char *details) {
    const char *verb = getenv("CNI_COMMAND");
    char *arguments[] = {"", (char *)executable, NULL};
    if (put_back(input, size) == 0)
        run_python(executable, "serve", program, 2, arguments);
    int status = verb && strcmp(verb, "STATUS") == 0;
    return fail(status ? NOT_AVAILABLE : TRY_AGAIN, why, details);
}

static int connect_daemon(const char *path, int64_t until) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, path);
    int fd = above_stderr(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd < 0)
        return -1;
    limit(fd, SO_SNDTIMEO, until); /* connecting waits while the daemon's queue is full */
    int done;
    do
        done = connect(fd, (struct sockaddr *)&address, sizeof address);
    while (done < 0 && errno == EINTR);
    if (done < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Whether root, or our own user, listens there: it is given the pod's network namespace. */
static int is_trusted(int fd) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return 0;
    return peer.uid == 0 || peer.uid == geteuid();
}

static int append(char *strings, uint32_t *used, const char *text) {
    size_t size = strlen(text) + 1;
    if (size > STRINGS_MAX - *used)
        return -1;
    memcpy(strings + *used, text, size);
    *used += (uint32_t)size;
    return 0;
}

static int gather(char *strings, uint32_t *used, const char *program, const char *executable) {
    if (append(strings, used, program) < 0 || append(strings, used, executable) < 0)
        return -1;
    for (char **variable = environ; *variable; variable++)
        if (strncmp(*variable, "CNI_", 4) == 0 && append(strings, used, *variable) < 0)
            return -1;
    return 0;
}

/* stdin up to the limit, which is a byte more than the daemon accepts: it refuses what is larger. */
static int read_input(char *into, uint32_t *used) {
    while (*used < STDIN_MAX) {
        ssize_t n = read(STDIN_FILENO, into + *used, STDIN_MAX - *used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        *used += (uint32_t)n;
    }
    return 0;
}

static int open_netns(uint32_t *error) {
    const char *path = getenv("CNI_NETNS");
    if (!path || !*path)
        return -1;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        *error = (uint32_t)errno;
    return above_stderr(fd);
}

static int send_request(int fd, const struct request *head, char *strings, char *input, int token,
                        int netns, int64_t until) {
    int passed[] = {token, netns};
    size_t size = netns < 0 ? sizeof token : sizeof passed;
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof passed)];
    } control = {0};
    struct iovec parts[] = {{(void *)head, sizeof *head}, {strings, head->strings},
                            {input, head->input}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3, .msg_control = control.space,
                             .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(c), passed, size);
    ssize_t n;
    do
        n = limit(fd, SO_SNDTIMEO, until) < 0 ? -1 : sendmsg(fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -1;
    size_t sent = (size_t)n;
    for (int i = 0; i < 3; i++) {
        size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len, rest = parts[i].iov_len - skip;
        sent -= skip;
        if (rest && (limit(fd, SO_SNDTIMEO, until) < 0 ||
                     write_all(fd, (char *)parts[i].iov_base + skip, rest) < 0))
            return -1;
    }
    return 0;
}

/* Whether a reply begins before a time. */
static int is_answered(int fd, int64_t until) {
    struct pollfd answer = {.fd = fd, .events = POLLIN};
    int64_t left;
    int ready = 0;
    while (ready <= 0 && (left = until - now()) > 0)
        ready = poll(&answer, 1, (int)left);
    char byte;
    return ready > 0 && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Take the call back, unless the daemon has begun it: the token is one, and who reads it has it. */
static int take_back(int token) {
    uint64_t value;
    return read(token, &value, sizeof value) == (ssize_t)sizeof value;
}

static int copy_reply(int fd, uint32_t size, int to, int64_t until) {
    char chunk[1 << 16];
    while (size > 0) {
        size_t want = size < sizeof chunk ? size : sizeof chunk;
        if (read_all(fd, chunk, want, until) < 0 || write_all(to, chunk, want) < 0)
            return -1;
        size -= (uint32_t)want;
    }
    return 0;
}

static int lost(void) {
    return fail(TRY_AGAIN, "podwire's daemon did not answer",
                "it may have carried the call out; see its log, then try again");
}

static int receive(int fd, int64_t until) {
    struct reply head;
    if (read_all(fd, &head, sizeof head, until) < 0)
        return lost();
    if (memcmp(head.magic, "PWRP", 4) != 0 || head.version != VERSION)
        return fail(TRY_AGAIN, "podwire's daemon speaks another protocol than its executable",
                    "update both to one version; the call may have been carried out");
    if (head.out > STDOUT_MAX || head.err > STDERR_MAX || head.status > 255)
        return lost();
    char *out = malloc(head.out ? head.out : 1);
    if (!out || read_all(fd, out, head.out, until) < 0)
        return lost(); /* nothing was printed yet: stdout holds one object */
    if (write_all(STDOUT_FILENO, out, head.out) < 0)
        return 1;
    (void)copy_reply(fd, head.err, STDERR_FILENO, until);
    return (int)head.status;
}

/* -- VERSION: answered here, however the daemon fares */

static const char *const SUPPORTED[] = {"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};
#define SUPPORTED_COUNT (sizeof SUPPORTED / sizeof *SUPPORTED)

static const char *skip_blanks(const char *at, const char *end) {
    while (at < end && memchr(" \t\r\n", *at, 4))
        at++;
    return at;
}

/* Where a string of JSON closes; NULL where it does not. at: behind its opening quote. */
static const char *find_quote(const char *at, const char *end) {
    for (; at < end && *at != '"'; at++)
        if (*at == '\\')
            at++;
    return at < end ? at : NULL;
}

/* The latest, or another one that a value begins with and that podwire speaks. */
static const char *spoken(const char *value, const char *end) {
    for (size_t n = 0; n < SUPPORTED_COUNT; n++) {
        size_t size = strlen(SUPPORTED[n]);
        if ((size_t)(end - value) >= size + 2 && *value == '"' && value[size + 1] == '"' &&
            memcmp(value + 1, SUPPORTED[n], size) == 0)
            return SUPPORTED[n];
    }
    return SUPPORTED[SUPPORTED_COUNT - 1];
}

/* The version to answer in: that of the configuration, of which no more is read than its keys. */
static const char *find_version(const char *at, size_t size) {
    static const char KEY[] = "cniVersion";
    const char *end = at + size, *latest = SUPPORTED[SUPPORTED_COUNT - 1], *found = latest;
    int depth = 0, exact = 0;
    at = skip_blanks(at, end);
    if (size >= STDIN_MAX || at == end || *at != '{')
        return latest;
    do {
        if (*at == '{' || *at == '[')
            depth++;
        else if (*at == '}' || *at == ']')
            depth--;
        else if (*at == '"') {
            const char *key = at + 1;
            if (!(at = find_quote(key, end)))
                return latest;
            const char *colon = skip_blanks(at + 1, end);
            /* As Go, which takes a key in any case; a member of the object alone is followed by : */
            if (depth == 1 && colon < end && *colon == ':' && at - key == sizeof KEY - 1 &&
                strncasecmp(key, KEY, sizeof KEY - 1) == 0) {
                int same = memcmp(key, KEY, sizeof KEY - 1) == 0;
                if (same || !exact)
                    found = spoken(skip_blanks(colon + 1, end), end);
                exact |= same;
            }
        }
        at++;
    } while (depth > 0 && at < end);
    return depth == 0 && skip_blanks(at, end) == end ? found : latest;
}

static int answer_version(const char *input, size_t size) {
    char body[512];
    int used = snprintf(body, sizeof body, "{\"cniVersion\": \"%s\", \"supportedVersions\": [",
                        find_version(input, size));
    for (size_t n = 0; n < SUPPORTED_COUNT; n++)
        used += snprintf(body + used, sizeof body - (size_t)used, "%s\"%s\"", n ? ", " : "",
                         SUPPORTED[n]);
    used += snprintf(body + used, sizeof body - (size_t)used, "]}\n");
    return write_all(STDOUT_FILENO, body, (size_t)used) < 0;
}

int main(int argc, char **argv) {
    const char *program = base_name(argc > 0 ? argv[0] : NULL);
    static char executable[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", executable, sizeof executable - 1);
    executable[length > 0 ? length : 0] = '\0';
    signal(SIGPIPE, SIG_IGN);
    const char *verb = getenv("CNI_COMMAND");
    if (!verb || !*verb) {
        run_python(executable, "explain", program, argc, argv);
        if (!verb && (argc > 1 || isatty(STDIN_FILENO))) {
            fprintf(stderr, "%s is a CNI plugin of podwire: a container runtime calls it\n", program);
            return 2;
        }
    }
    struct request head = {.magic = {'P', 'W', 'R', 'Q'}, .version = VERSION};
    char *strings = malloc(STRINGS_MAX), *input = malloc(STDIN_MAX);
    if (!strings || !input)
        return fail(TRY_AGAIN, "out of memory", "nothing was done");
    /* Before connecting: the daemon waits 10 s for a request, and the writer of stdin may be slow. */
    if (read_input(input, &head.input) < 0) {
        char msg[128];
        snprintf(msg, sizeof msg, "cannot read stdin: %s", strerror(errno));
        return fail(IO_FAILURE, msg, NULL);
    }
    if (verb && strcmp(verb, "VERSION") == 0)
        return answer_version(input, head.input);
    const char *path = getenv("PODWIRE_SOCKET");
    if (!path || !*path)
        path = SOCKET_PATH;
    if (*path != '/')
        return fail(INVALID_ENVIRONMENT, "PODWIRE_SOCKET must be an absolute path", "nothing was done");
    int too_large = gather(strings, &head.strings, program, executable) < 0;
    int netns = open_netns(&head.netns_errno);
    int token = above_stderr(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
    if (token < 0)
        return fail(TRY_AGAIN, "out of descriptors or memory", "nothing was done");
    int64_t began = now(), until_begun = began + BEGIN_SECONDS * 1000;
    /* All is ready to be sent: the daemon is woken by the connection. */
    int fd = connect_daemon(path, until_begun);
    if (fd < 0)
        return fall_back(program, executable, input, head.input,
                         "podwire's daemon does not run on this node",
                         "start podwired; nothing was done");
    if (!is_trusted(fd))
        return fail(IO_FAILURE, "another user than root answers at podwire's socket",
                    "see who owns it and its folder; nothing was done");
    if (too_large)
        return fail(INVALID_ENVIRONMENT, "the CNI_ variables are larger than 1 MiB", "nothing was done");
    /* A daemon that refuses may answer and close before it has read everything: its answer is there
     * to be read even where our writing failed. */
    (void)send_request(fd, &head, strings, input, token, netns, until_begun);
    if (!is_answered(fd, until_begun) && take_back(token))
        return fall_back(program, executable, input, head.input,
                         "podwire's daemon has not begun this call",
                         "does podwired hang? its log says more; nothing was done");
    return receive(fd, began + REPLY_SECONDS * 1000);
}
