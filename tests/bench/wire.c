/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The peer's end of a connection to a chardev: a bare socket or SPICE
 *
 * A SPICE connection begins with the link phase: the client sends a header and
 * what it wants, the server answers with its public key, the client sends the
 * password encrypted with it, the server accepts or refuses.  From then on
 * both sides send messages of a short header (type, size) and a body.  That
 * header is always used here (the "mini header"; servers old enough not to
 * know it are refused).
 *
 * Reading is done with one large buffer per wire.  wire_step() looks at what
 * is in it and returns at most one thing: a stretch of payload, which stays
 * where it is, or a complete control message, of which only the first bytes
 * are kept.  So the cost per message is a few instructions, and the peer is not
 * what limits a measurement.
 *
 * With TLS the records take the place of the socket's bytes.  Whose certificate
 * it is does not matter here and is not looked at.
 *
 * The main channel must be served while another one is measured, or the server
 * may take the client for dead: a thread reads it and answers its pings.  Where
 * the agent is what is measured the main channel is the wire itself.
 */

#include "wire.h"

#include <errno.h>
#include <gcrypt.h>
#include <gnutls/gnutls.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    LINK_MAJOR = 2,
    LINK_MINOR = 2,
    LINK_HEADER = 16,
    LINK_REPLY = 178,
    LINK_MAX = 4096,
    PUBKEY_OFFSET = 4,
    PUBKEY_SIZE = 162,
    TICKET_SIZE = 128,

    CAP_AUTH_SELECTION = 1 << 0,
    CAP_AUTH_SPICE = 1 << 1,
    CAP_MINI_HEADER = 1 << 3,
    AUTH_SPICE = 1,

    CHANNEL_MAIN = 1,
    CHANNEL_USBREDIR = 9,
    CHANNEL_PORT = 10,

    MINI_HEADER = 6,
    READ_BUFFER = 256 * 1024,
    TLS_RECORD = 16 * 1024,
    CONTROL_MAX = 2048,
};

/* What the server sends */
enum {
    MSG_PING = 4,
    MSG_MAIN_INIT = 103,
    MSG_MAIN_CHANNELS_LIST = 104,
    MSG_MAIN_AGENT_CONNECTED = 107,
    MSG_MAIN_AGENT_DATA = 109,
    MSG_MAIN_AGENT_CONNECTED_TOKENS = 115,
    MSG_PORT_DATA = 101,
    MSG_PORT_INIT = 201,
    MSG_PORT_EVENT = 202,
};

/* What the client sends */
enum {
    MSGC_PONG = 3,
    MSGC_MAIN_ATTACH_CHANNELS = 104,
    MSGC_MAIN_AGENT_START = 106,
    MSGC_PORT_DATA = 101,
};

enum {
    PORT_OPENED = 0,
    PORT_CLOSED = 1,
};

typedef enum WireStep {
    STEP_PAYLOAD,
    STEP_CONTROL,
    STEP_END,
} WireStep;

struct Wire {
    int fd;
    gnutls_session_t tls;           /* NULL without */
    bool spice;
    bool agent;                     /* the main channel, for its agent */
    uint8_t channel_type;
    bool port_open;
    uint64_t reads;
    uint64_t messages;

    uint8_t *buf;
    size_t pos;
    size_t end;

    uint8_t header[MINI_HEADER];
    size_t header_got;
    uint16_t type;
    uint32_t left;                  /* of the body */
    uint8_t control[CONTROL_MAX];   /* its first bytes, if it is control */
    size_t control_len;

    const uint8_t *payload;
    size_t payload_len;

    WireSession *session;           /* its own, closed with it, or NULL */
};

struct WireSession {
    WireAddress where;
    Wire *main;
    uint32_t connection_id;
    uint8_t ports[WIRE_PORTS_MAX];  /* channel ids, as listed */
    unsigned ports_n;
    pthread_t main_thread;
    bool served;
};

void die(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    fputs("peer: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static void *xmalloc(size_t size)
{
    void *p = calloc(1, size);

    if (!p) {
        die("out of memory");
    }
    return p;
}

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = v;
    p[1] = v >> 8;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v);
    put16(p + 2, v >> 16);
}

static uint16_t get16(const uint8_t *p)
{
    return p[0] | p[1] << 8;
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) | (uint32_t)get16(p + 2) << 16;
}

/* Sockets */

static int connect_unix(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(sa.sun_path)) {
        die("the socket's path is too long: %s", path);
    }
    strcpy(sa.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        die("can not connect to %s: %s", path, strerror(errno));
    }
    return fd;
}

static int connect_tcp(const char *host_port)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *list, *ai;
    const char *colon = strrchr(host_port, ':');
    char host[256];
    int fd = -1, one = 1, rc;

    if (!colon || (size_t)(colon - host_port) >= sizeof(host)) {
        die("expected tcp:HOST:PORT, got tcp:%s", host_port);
    }
    memcpy(host, host_port, colon - host_port);
    host[colon - host_port] = 0;
    rc = getaddrinfo(host, colon + 1, &hints, &list);
    if (rc) {
        die("can not resolve %s: %s", host_port, gai_strerror(rc));
    }
    for (ai = list; ai; ai = ai->ai_next) {
        fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && !connect(fd, ai->ai_addr, ai->ai_addrlen)) {
            break;
        }
        if (fd >= 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0) {
        die("can not connect to %s: %s", host_port, strerror(errno));
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

/* Wait for one connection on a UNIX socket */
static int listen_unix(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int listener, fd;

    if (strlen(path) >= sizeof(sa.sun_path)) {
        die("the socket's path is too long: %s", path);
    }
    strcpy(sa.sun_path, path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&sa, sizeof(sa)) ||
        listen(listener, 1)) {
        die("can not listen at %s: %s", path, strerror(errno));
    }
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        die("nobody connected to %s: %s", path, strerror(errno));
    }
    close(listener);
    return fd;
}

static int connect_address(const char *address)
{
    if (!strncmp(address, "listen:", 7)) {
        return listen_unix(address + 7);
    }
    if (!strncmp(address, "unix:", 5)) {
        return connect_unix(address + 5);
    }
    if (!strncmp(address, "tcp:", 4)) {
        return connect_tcp(address + 4);
    }
    die("expected unix:PATH, tcp:HOST:PORT or listen:PATH, got %s", address);
}

/* TLS */

static gnutls_certificate_credentials_t tls_credentials(void)
{
    static gnutls_certificate_credentials_t credentials;

    if (!credentials &&
        gnutls_certificate_allocate_credentials(&credentials) < 0) {
        die("TLS can not be set up");
    }
    return credentials;
}

static void tls_handshake(Wire *w)
{
    int rc;

    if (gnutls_init(&w->tls, GNUTLS_CLIENT) < 0 ||
        gnutls_set_default_priority(w->tls) < 0 ||
        gnutls_credentials_set(w->tls, GNUTLS_CRD_CERTIFICATE,
                               tls_credentials()) < 0) {
        die("TLS can not be set up");
    }
    gnutls_transport_set_int(w->tls, w->fd);
    do {
        rc = gnutls_handshake(w->tls);
    } while (rc < 0 && !gnutls_error_is_fatal(rc));
    if (rc < 0) {
        die("TLS: %s", gnutls_strerror(rc));
    }
}

static void tls_send(Wire *w, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t ret = gnutls_record_send(w->tls, data, len);

        if (ret < 0 && gnutls_error_is_fatal(ret)) {
            die("sending failed: %s", gnutls_strerror(ret));
        }
        if (ret > 0) {
            data += ret;
            len -= ret;
        }
    }
}

/* One record for a header and the beginning of its body, as clients do it */
static void tls_send_iov(Wire *w, const struct iovec *iov, int n)
{
    uint8_t record[TLS_RECORD];
    size_t fill = 0;
    int i;

    for (i = 0; i < n; i++) {
        const uint8_t *p = iov[i].iov_base;
        size_t left = iov[i].iov_len;

        while (left) {
            size_t part = left < sizeof(record) - fill ? left
                                                       : sizeof(record) - fill;

            if (!fill && part == sizeof(record)) {
                tls_send(w, p, part);
            } else {
                memcpy(record + fill, p, part);
                fill += part;
            }
            p += part;
            left -= part;
            if (fill == sizeof(record)) {
                tls_send(w, record, fill);
                fill = 0;
            }
        }
    }
    tls_send(w, record, fill);
}

/* 0 at the end of the stream, or when it broke */
static ssize_t wire_recv(Wire *w, void *data, size_t len)
{
    ssize_t ret;

    if (!w->tls) {
        do {
            ret = recv(w->fd, data, len, 0);
        } while (ret < 0 && errno == EINTR);
    } else {
        do {
            ret = gnutls_record_recv(w->tls, data, len);
        } while (ret < 0 && !gnutls_error_is_fatal(ret));
    }
    return ret < 0 ? 0 : ret;
}

static void send_iov(Wire *w, struct iovec *iov, int n)
{
    int fd = w->fd;

    if (w->tls) {
        tls_send_iov(w, iov, n);
        return;
    }
    while (n) {
        struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
        ssize_t ret = sendmsg(fd, &msg, MSG_NOSIGNAL);

        if (ret < 0) {
            if (errno == EINTR) {
                continue;
            }
            die("sending failed: %s", strerror(errno));
        }
        while (n && (size_t)ret >= iov->iov_len) {
            ret -= iov->iov_len;
            iov++;
            n--;
        }
        if (n) {
            iov->iov_base = (uint8_t *)iov->iov_base + ret;
            iov->iov_len -= ret;
        }
    }
}

static void send_all(Wire *w, const void *data, size_t len)
{
    struct iovec iov = { .iov_base = (void *)data, .iov_len = len };

    send_iov(w, &iov, 1);
}

static void recv_all(Wire *w, void *data, size_t len)
{
    while (len) {
        ssize_t ret = wire_recv(w, data, len);

        if (ret <= 0) {
            die("the link broke off");
        }
        data = (uint8_t *)data + ret;
        len -= ret;
    }
}

/* The link phase */

/* The content of the next DER element if it has tag @tag; *p moves behind */
static const uint8_t *der_enter(const uint8_t **p, const uint8_t *end,
                                uint8_t tag, size_t *len)
{
    const uint8_t *q = *p;
    size_t n;

    if (end - q < 2 || *q++ != tag) {
        die("the server's public key is not an RSA key in DER");
    }
    n = *q++;
    if (n & 0x80) {
        unsigned bytes = n & 0x7f;

        for (n = 0; bytes && q < end; bytes--) {
            n = n << 8 | *q++;
        }
    }
    if (n > (size_t)(end - q)) {
        die("the server's public key is cut short");
    }
    *p = q + n;
    *len = n;
    return q;
}

/* RSA-OAEP with SHA-1 of the password and its NUL */
static void make_ticket(const uint8_t *spki, const char *password,
                        uint8_t ticket[TICKET_SIZE])
{
    const uint8_t *p = spki, *end = spki + PUBKEY_SIZE, *n, *e;
    gcry_sexp_t key, plain, cipher, value;
    size_t len, n_len, e_len, out_len;
    const char *out;

    p = der_enter(&p, end, 0x30, &len);         /* the whole */
    end = p + len;
    der_enter(&p, end, 0x30, &len);             /* algorithm, skipped */
    p = der_enter(&p, end, 0x03, &len) + 1;     /* bit string, unused bits */
    p = der_enter(&p, end, 0x30, &len);         /* RSAPublicKey */
    n = der_enter(&p, end, 0x02, &n_len);
    e = der_enter(&p, end, 0x02, &e_len);

    gcry_check_version(NULL);
    gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    if (gcry_sexp_build(&key, NULL, "(public-key(rsa(n%b)(e%b)))",
                        (int)n_len, n, (int)e_len, e) ||
        gcry_sexp_build(&plain, NULL,
                        "(data(flags oaep)(hash-algo sha1)(value%b))",
                        (int)strlen(password) + 1, password) ||
        gcry_pk_encrypt(&cipher, plain, key)) {
        die("the password can not be encrypted with the server's key");
    }
    value = gcry_sexp_find_token(cipher, "a", 0);
    out = value ? gcry_sexp_nth_data(value, 1, &out_len) : NULL;
    if (!out || out_len > TICKET_SIZE) {
        die("the encrypted password has an unexpected size");
    }
    memset(ticket, 0, TICKET_SIZE);
    memcpy(ticket + TICKET_SIZE - out_len, out, out_len);
    gcry_sexp_release(value);
    gcry_sexp_release(cipher);
    gcry_sexp_release(plain);
    gcry_sexp_release(key);
}

static Wire *wire_new(const WireAddress *where)
{
    Wire *w = xmalloc(sizeof(*w));

    w->fd = connect_address(where->address);
    w->spice = where->spice;
    w->buf = xmalloc(READ_BUFFER);
    if (where->tls) {
        tls_handshake(w);
    }
    return w;
}

static Wire *wire_link(const WireAddress *where, uint32_t connection_id,
                       uint8_t type, uint8_t id)
{
    static const char magic[4] = "REDQ";
    uint8_t mess[LINK_HEADER + 18 + 4] = { 0 };
    uint8_t reply[LINK_HEADER + LINK_MAX];
    uint8_t auth[4 + TICKET_SIZE];
    uint32_t size, caps, caps_n, caps_off;
    uint8_t *p = mess + LINK_HEADER;
    Wire *w = wire_new(where);

    w->channel_type = type;
    memcpy(mess, magic, 4);
    put32(mess + 4, LINK_MAJOR);
    put32(mess + 8, LINK_MINOR);
    put32(mess + 12, sizeof(mess) - LINK_HEADER);
    put32(p, connection_id);
    p[4] = type;
    p[5] = id;
    put32(p + 6, 1);
    put32(p + 10, 0);
    put32(p + 14, 18);
    put32(p + 18, CAP_AUTH_SELECTION | CAP_AUTH_SPICE | CAP_MINI_HEADER);
    send_all(w, mess, sizeof(mess));

    recv_all(w, reply, LINK_HEADER);
    size = get32(reply + 12);
    if (memcmp(reply, magic, 4) || size < LINK_REPLY || size > LINK_MAX) {
        die("the far end does not speak SPICE");
    }
    p = reply + LINK_HEADER;
    recv_all(w, p, size);
    if (get32(p)) {
        die("the link to channel %u:%u was refused with error %u",
            type, id, get32(p));
    }
    caps_n = get32(p + PUBKEY_OFFSET + PUBKEY_SIZE);
    caps_off = get32(p + PUBKEY_OFFSET + PUBKEY_SIZE + 8);
    caps = caps_n && caps_off <= size - 4 ? get32(p + caps_off) : 0;
    if (!(caps & CAP_MINI_HEADER) || !(caps & CAP_AUTH_SELECTION)) {
        die("the server lacks mini headers or the choice of authentication");
    }

    put32(auth, AUTH_SPICE);
    make_ticket(p + PUBKEY_OFFSET, where->password, auth + 4);
    send_all(w, auth, sizeof(auth));
    recv_all(w, reply, 4);
    if (get32(reply)) {
        die("channel %u:%u was not granted: link result %u%s", type, id,
            get32(reply), get32(reply) == 7 ? " (wrong password)" : "");
    }
    return w;
}

/* Messages */

static void send_message(Wire *w, uint16_t type, const void *body,
                         uint32_t size)
{
    uint8_t header[MINI_HEADER];
    struct iovec iov[2] = {
        { .iov_base = header, .iov_len = sizeof(header) },
        { .iov_base = (void *)body, .iov_len = size },
    };

    put16(header, type);
    put32(header + 2, size);
    send_iov(w, iov, size ? 2 : 1);
}

/* False at the end of the stream */
static bool wire_fill(Wire *w)
{
    ssize_t ret = wire_recv(w, w->buf, READ_BUFFER);

    w->reads++;
    if (ret <= 0) {
        return false;
    }
    w->pos = 0;
    w->end = ret;
    return true;
}

static bool wire_is_payload(const Wire *w)
{
    return w->agent ? w->type == MSG_MAIN_AGENT_DATA
                    : w->channel_type != CHANNEL_MAIN &&
                      w->type == MSG_PORT_DATA;
}

static size_t wire_take(Wire *w, size_t max)
{
    size_t n = w->end - w->pos;

    return n < max ? n : max;
}

/* The agent may send as much as it likes */
static void wire_agent_start(Wire *w)
{
    static const uint8_t tokens[4] = { 0xff, 0xff, 0xff, 0xff };

    send_message(w, MSGC_MAIN_AGENT_START, tokens, sizeof(tokens));
    w->port_open = true;
}

static void wire_control(Wire *w)
{
    if (w->type == MSG_PING && w->control_len >= 12) {
        send_message(w, MSGC_PONG, w->control, 12);
    } else if (w->agent && (w->type == MSG_MAIN_AGENT_CONNECTED ||
                            w->type == MSG_MAIN_AGENT_CONNECTED_TOKENS)) {
        wire_agent_start(w);
    } else if (w->channel_type != CHANNEL_PORT) {
        return;
    } else if (w->type == MSG_PORT_INIT && w->control_len >= 9) {
        w->port_open = w->control[8];
    } else if (w->type == MSG_PORT_EVENT && w->control_len >= 1) {
        if (w->control[0] == PORT_OPENED) {
            w->port_open = true;
        } else if (w->control[0] == PORT_CLOSED) {
            w->port_open = false;
        }
    }
}

static WireStep wire_step(Wire *w)
{
    for (;;) {
        size_t n;

        if (w->pos == w->end && !wire_fill(w)) {
            return STEP_END;
        }
        if (!w->spice) {
            w->payload = w->buf + w->pos;
            w->payload_len = w->end - w->pos;
            w->pos = w->end;
            return STEP_PAYLOAD;
        }
        if (w->header_got < MINI_HEADER) {
            n = wire_take(w, MINI_HEADER - w->header_got);
            memcpy(w->header + w->header_got, w->buf + w->pos, n);
            w->header_got += n;
            w->pos += n;
            if (w->header_got < MINI_HEADER) {
                continue;
            }
            w->type = get16(w->header);
            w->left = get32(w->header + 2);
            w->control_len = 0;
            w->messages += wire_is_payload(w);
        }
        n = wire_take(w, w->left);
        if (wire_is_payload(w) && n) {
            w->payload = w->buf + w->pos;
            w->payload_len = n;
        } else if (!wire_is_payload(w)) {
            size_t keep = CONTROL_MAX - w->control_len;

            keep = n < keep ? n : keep;
            memcpy(w->control + w->control_len, w->buf + w->pos, keep);
            w->control_len += keep;
        }
        w->pos += n;
        w->left -= n;
        if (!w->left) {
            w->header_got = 0;
        }
        if (wire_is_payload(w)) {
            if (n) {
                return STEP_PAYLOAD;
            }
        } else if (!w->left) {
            wire_control(w);
            return STEP_CONTROL;
        }
    }
}

/* Wait for a control message of type @type on a channel without payload */
static void wire_expect(Wire *w, uint16_t type, size_t least)
{
    do {
        if (wire_step(w) == STEP_END) {
            die("the server closed channel type %u before message %u",
                w->channel_type, type);
        }
    } while (w->type != type);
    if (w->control_len < least) {
        die("message %u has %zu bytes, at least %zu were expected",
            type, w->control_len, least);
    }
}

static void *main_thread(void *opaque)
{
    Wire *w = opaque;

    while (wire_step(w) != STEP_END) {
        continue;
    }
    return NULL;
}

/* A client's main channel, and where INIT says whether there is an agent */
static Wire *wire_open_main(const WireAddress *where)
{
    Wire *m = wire_link(where, 0, CHANNEL_MAIN, 0);

    wire_expect(m, MSG_MAIN_INIT, 32);
    return m;
}

static uint8_t channel_type(const WireAddress *where)
{
    return where->usb ? CHANNEL_USBREDIR : CHANNEL_PORT;
}

WireSession *wire_session_open(const WireAddress *where)
{
    WireSession *s = xmalloc(sizeof(*s));
    Wire *m = wire_open_main(where);
    uint32_t n, i;

    s->where = *where;
    s->main = m;
    s->connection_id = get32(m->control);
    send_message(m, MSGC_MAIN_ATTACH_CHANNELS, NULL, 0);
    wire_expect(m, MSG_MAIN_CHANNELS_LIST, 4);
    n = get32(m->control);
    for (i = 0; i < n && 4 + 2 * i + 2 <= m->control_len; i++) {
        const uint8_t *entry = m->control + 4 + 2 * i;

        if (entry[0] == channel_type(where) && s->ports_n < WIRE_PORTS_MAX) {
            s->ports[s->ports_n++] = entry[1];
        }
    }
    return s;
}

void wire_session_serve(WireSession *s)
{
    if (pthread_create(&s->main_thread, NULL, main_thread, s->main)) {
        die("can not start a thread");
    }
    s->served = true;
}

void wire_session_close(WireSession *s)
{
    if (s->served) {
        shutdown(s->main->fd, SHUT_RDWR);
        pthread_join(s->main_thread, NULL);
    }
    wire_close(s->main);
    free(s);
}

Wire *wire_session_port(WireSession *s, unsigned number)
{
    Wire *w;
    unsigned i;

    /* The list does not say in which order it is */
    for (i = 0; i < s->ports_n && s->ports[i] != number; i++) {
        continue;
    }
    if (i == s->ports_n) {
        die("the server lists %u channels of type %u, and none is number %u",
            s->ports_n, channel_type(&s->where), number);
    }
    w = wire_link(&s->where, s->connection_id, channel_type(&s->where),
                  number);
    w->port_open = s->where.usb;        /* which has no word for that */
    while (!s->where.usb && w->type != MSG_PORT_INIT) {
        if (wire_step(w) == STEP_END) {
            die("the server closed the port channel at once");
        }
    }
    return w;
}

Wire *wire_open(const WireAddress *where)
{
    WireSession *s;
    Wire *w;

    if (!where->spice) {
        return wire_new(where);
    }
    s = wire_session_open(where);
    wire_session_serve(s);
    w = wire_session_port(s, where->channel);
    w->session = s;
    return w;
}

Wire *wire_open_agent(const WireAddress *where)
{
    Wire *w = wire_open_main(where);

    w->agent = true;
    if (get32(w->control + 16)) {
        wire_agent_start(w);
    }
    return w;
}

void wire_wait_open(Wire *w)
{
    while (w->spice && !w->port_open) {
        switch (wire_step(w)) {
        case STEP_PAYLOAD:
            die("data came before the port was opened");
        case STEP_END:
            die("the server closed the port channel");
        case STEP_CONTROL:
            break;
        }
    }
}

size_t wire_read(Wire *w, const uint8_t **data)
{
    for (;;) {
        switch (wire_step(w)) {
        case STEP_PAYLOAD:
            *data = w->payload;
            return w->payload_len;
        case STEP_END:
            die("the connection was closed by the far end");
        case STEP_CONTROL:
            break;
        }
    }
}

void wire_write(Wire *w, const uint8_t *data, size_t len)
{
    if (w->spice) {
        send_message(w, MSGC_PORT_DATA, data, len);
    } else {
        send_all(w, data, len);
    }
}

bool wire_buffered(const Wire *w)
{
    return w->pos < w->end;
}

uint64_t wire_reads(const Wire *w)
{
    return w->reads;
}

uint64_t wire_messages(const Wire *w)
{
    return w->messages;
}

int wire_fd(const Wire *w)
{
    return w->fd;
}

void wire_close(Wire *w)
{
    if (w->session) {
        wire_session_close(w->session);
    }
    if (w->tls) {
        gnutls_deinit(w->tls);
    }
    close(w->fd);
    free(w->buf);
    free(w);
}
