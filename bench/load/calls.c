/* The load: many calls in one process, on one core, with as little work of its own as there can be.
 *
 * It plays the switch on the control leg (says what was recorded) and the audio module on the media leg (a WebSocket
 * client: a stamped frame every 20 ms, each call on a slot of its own). One command a line on stdin, one line of JSON
 * back when it is done. All times are CLOCK_MONOTONIC, so the server's own notes can be laid beside them.
 *
 *     calls SCRIPT CONTROL_PORT MEDIA_PORT FIRST      a port of 0: the calls have no such leg
 *
 * SCRIPT is a sequence of (tag of 4 bytes, length as uint32 LE, bytes): `ID  ` the Unique-ID in what follows, `CONN` the
 * connect answer, `EVNT` an event (several), `HANG` CHANNEL_HANGUP, `ENDI` all that follows it, `PATH` the WebSocket
 * path of the next call. Call number n, from FIRST on, has the Unique-ID that `name_call` writes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { ID = 36, SLOTS = 20, FRAME = 640, WIRE = 8 + FRAME, PIECE = 1 << 18, MOST_BLOBS = 256 };
static const int64_t MS = 1000000, S = 1000000000;
static const int64_t LOOKS_EVERY = 20 * 1000000;  /* the switch looks for events that often */
static const int64_t SHORT_TALK = 100 * 1000000;  /* how long a call of a soak talks */
static const int64_t CLOSES_AFTER = 1000000000;   /* a server that does not let go of a call that is over */
static const unsigned char MASK[4] = {0xa5, 0x3c, 0x5a, 0xc3};
static const char REPLY[] = "Content-Type: command/reply\nReply-Text: +OK\n\n";
static const char API_REPLY[] = "Content-Type: api/response\nContent-Length: 12\n\n+OK Success\n";
static const char GOODBYE[] = "Content-Type: command/reply\nReply-Text: +OK bye\n\n"
    "Content-Type: text/disconnect-notice\nContent-Length: 67\n\n"
    "Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n";

typedef struct { char *data; int size, *spots, spot_count; } Blob;
typedef struct { int64_t *at; size_t count, room; } Series;
typedef struct Call Call;
typedef struct { int fd; bool media, connecting, shaken, waits; Call *call; char *in, *out; int held, in_room, queued, out_room; } Conn;
struct Call {
    Conn control, media;
    char id[ID + 1];
    long number;
    bool up, hung, gone;
    int64_t began, ends, closes, heard;
    uint32_t sent, next;
    int live_at;
    Call *after;
};
enum Doing { NOTHING, PLACING, MEASURING, EVENTS, HANGING, SETTING_UP, FLOODING, SOAKING };

static int epoll, control_port, media_port;
static char own_id[ID + 1];
static Blob answer, hangup, ending, events[MOST_BLOBS];
static int event_count, path_count, path_room;
static char **paths;
static long first_number, next_number;
static Call **live;  /* up, and not hung up */
static int live_count, live_room, opening, open_calls;
static Call **slots[SLOTS];
static int slot_count[SLOTS], slot_room[SLOTS];
static Call *due_first, *due_last, *close_first, *close_last;
static bool talking, listening;
static Series echo, late, gaps, took;
static long frames_sent, frames_back, frames_wrong, frames_heard, placed, failed, events_sent, event_at, stuck;
static long long bytes_taken;
static int64_t slot_began, slot_number;
static double background;
static int64_t background_began;
static long background_sent;

static enum Doing doing;
static long wanted, begun, in_flight, limit_in_flight;
static double rate;
static int64_t did_begin, does_end;
static char *told;
static size_t told_size, told_room;
static struct timespec cpu_began;

static int64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * S + t.tv_nsec; }
static void die(const char *what) { perror(what); exit(1); }
static void *grown(void *old, size_t size) { void *data = realloc(old, size); if (!data) die("realloc"); return data; }

static void note(Series *series, int64_t value) {
    if (series->count == series->room) {
        series->room = series->room ? 2 * series->room : 1 << 14;
        series->at = grown(series->at, series->room * sizeof *series->at);
    }
    series->at[series->count++] = value;
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void print_series(const char *name, Series *series) {
    size_t n = series->count;
    if (!n) { printf(", \"%s\": null", name); return; }
    qsort(series->at, n, sizeof *series->at, by_size);
    printf(", \"%s\": {\"count\": %zu, \"p50\": %.4f, \"p99\": %.4f, \"max\": %.4f}", name, n,
           series->at[(n + 1) / 2 - 1] / 1e6, series->at[(n * 99 + 99) / 100 - 1] / 1e6, series->at[n - 1] / 1e6);
}

/* -- what is said */

static void name_call(char *id, long number) { sprintf(id, "%08lx-0d0e-4000-8000-%012lx", number, number); }

static Blob blob_of(const char *data, int size) {
    Blob blob = {malloc(size), size, NULL, 0};
    memcpy(blob.data, data, size);
    for (char *at = blob.data; (at = memmem(at, blob.data + size - at, own_id, ID)); at += ID) {
        blob.spots = grown(blob.spots, (blob.spot_count + 1) * sizeof(int));
        blob.spots[blob.spot_count++] = at - blob.data;
    }
    return blob;
}

static void read_script(const char *name) {
    FILE *file = fopen(name, "rb");
    char tag[4];
    uint32_t size;
    if (!file) die(name);
    while (fread(tag, 4, 1, file) == 1 && fread(&size, 4, 1, file) == 1) {
        char *data = malloc(size + 1);
        if (size && fread(data, size, 1, file) != 1) die("script");
        data[size] = 0;
        if (!memcmp(tag, "ID  ", 4)) memcpy(own_id, data, ID);
        else if (!memcmp(tag, "CONN", 4)) answer = blob_of(data, size);
        else if (!memcmp(tag, "HANG", 4)) hangup = blob_of(data, size);
        else if (!memcmp(tag, "ENDI", 4)) ending = blob_of(data, size);
        else if (!memcmp(tag, "EVNT", 4) && event_count < MOST_BLOBS) events[event_count++] = blob_of(data, size);
        else if (!memcmp(tag, "PATH", 4)) {
            if (path_count == path_room) paths = grown(paths, (path_room = 2 * path_room + 64) * sizeof *paths);
            paths[path_count++] = data;
            continue;
        }
        free(data);
    }
    fclose(file);
}

/* -- connections */

static void watch(Conn *conn, int how) {
    struct epoll_event event = {.events = EPOLLIN | (conn->waits ? EPOLLOUT : 0), .data.ptr = conn};
    if (epoll_ctl(epoll, how, conn->fd, &event) < 0) die("epoll_ctl");
}

static void append(char **buffer, int *held, int *room, const char *data, int size) {
    if (*held + size > *room) *buffer = grown(*buffer, *room = 2 * (*held + size));
    memcpy(*buffer + *held, data, size);
    *held += size;
}

static void leave_live(Call *call) {
    if (call->live_at < 0) return;
    live[call->live_at] = live[--live_count];
    live[call->live_at]->live_at = call->live_at;
    call->live_at = -1;
}

static void shut(Conn *conn) {
    Call *call = conn->call;
    if (conn->fd < 0) return;
    close(conn->fd);
    conn->fd = -1;
    free(conn->in); free(conn->out);
    conn->in = conn->out = NULL;
    conn->held = conn->in_room = conn->queued = conn->out_room = 0;
    if (!call->up && !call->gone) { failed++; opening--; in_flight--; call->gone = true; shut(&call->control); shut(&call->media); open_calls--; return; }
    if (call->gone) return;
    leave_live(call);
    if (call->control.fd < 0 && call->media.fd < 0) { call->gone = true; open_calls--; }
}

static void say(Conn *conn, const char *data, int size) {
    if (conn->fd < 0) return;
    if (!conn->queued && !conn->connecting) {
        ssize_t wrote = write(conn->fd, data, size);
        if (wrote < 0 && errno != EAGAIN) { shut(conn); return; }
        if (wrote < 0) wrote = 0;
        bytes_taken += wrote;
        if (wrote == size) return;
        data += wrote; size -= wrote;
        stuck++;
    }
    append(&conn->out, &conn->queued, &conn->out_room, data, size);
    if (!conn->waits) { conn->waits = true; watch(conn, EPOLL_CTL_MOD); }
}

static void say_blob(Call *call, const Blob *blob) {
    static char data[1 << 20];
    memcpy(data, blob->data, blob->size);
    for (int i = 0; i < blob->spot_count; i++) memcpy(data + blob->spots[i], call->id, ID);
    say(&call->control, data, blob->size);
}

static void dial(Conn *conn, Call *call, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    conn->call = call;
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (conn->fd < 0) die("socket");
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    conn->connecting = conn->waits = connect(conn->fd, (struct sockaddr *)&address, sizeof address) < 0;
    watch(conn, EPOLL_CTL_ADD);
}

static void dial_media(Call *call) {
    char text[1024];
    long at = call->number - first_number;
    if (at >= path_count) { fprintf(stderr, "no path for call %ld\n", call->number); exit(1); }
    dial(&call->media, call, media_port);
    int size = snprintf(text, sizeof text,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", paths[at], media_port);
    say(&call->media, text, size);
}

static void place(void) {
    Call *call = calloc(1, sizeof *call);
    call->number = next_number++;
    name_call(call->id, call->number);
    call->control.fd = call->media.fd = call->live_at = -1;
    call->media.media = true;
    call->began = now_ns();
    opening++; in_flight++; open_calls++;
    if (control_port) dial(&call->control, call, control_port);
    else dial_media(call);
}

static void end_call(Call *call, int64_t now) {  /* after CHANNEL_HANGUP */
    say_blob(call, &ending);
    call->closes = now + CLOSES_AFTER;
    call->after = NULL;
    if (close_last) close_last->after = call; else close_first = call;
    close_last = call;
}

static void hang_up_later(Call *call, int64_t when) {
    call->ends = when;
    call->after = NULL;
    if (due_last) due_last->after = call; else due_first = call;
    due_last = call;
}

static void came_up(Call *call) {
    int slot = call->number % SLOTS;
    call->up = true;
    opening--; in_flight--; placed++;
    note(&took, now_ns() - call->began);
    if (doing == SETTING_UP) {
        call->hung = true;
        say_blob(call, &hangup);
        end_call(call, now_ns());
        return;
    }
    if (doing == SOAKING) {
        for (int i = 0; i < event_count && i < 5; i++) say_blob(call, &events[i]);
        hang_up_later(call, now_ns() + SHORT_TALK);
    }
    if (live_count == live_room) live = grown(live, (live_room = 2 * live_room + 64) * sizeof *live);
    call->live_at = live_count;
    live[live_count++] = call;
    if (media_port) {
        if (slot_count[slot] == slot_room[slot]) slots[slot] = grown(slots[slot], (slot_room[slot] = 2 * slot_room[slot] + 16) * sizeof(Call *));
        slots[slot][slot_count[slot]++] = call;
    }
}

/* -- what is heard */

static void control_heard(Conn *conn) {
    Call *call = conn->call;
    int at = 0;
    char *end;
    while (conn->fd >= 0) {
        while (at < conn->held && (conn->in[at] == '\n' || conn->in[at] == '\r')) at++;
        if (!(end = memmem(conn->in + at, conn->held - at, "\n\n", 2))) break;
        const char *word = conn->in + at;
        at = end + 2 - conn->in;
        if (!strncmp(word, "connect", 7)) say_blob(call, &answer);
        else if (!strncmp(word, "exit", 4)) { say(conn, GOODBYE, sizeof GOODBYE - 1); shut(conn); return; }
        else if (!strncmp(word, "api ", 4)) {
            say(conn, API_REPLY, sizeof API_REPLY - 1);
            if (!call->up && call->media.fd < 0) {  /* the application knows its channel: that is what set-up means here */
                if (media_port) dial_media(call); else came_up(call);
            }
        } else say(conn, REPLY, sizeof REPLY - 1);
    }
    if (conn->fd < 0) return;
    memmove(conn->in, conn->in + at, conn->held - at);
    conn->held -= at;
}

static void send_masked(Conn *conn, int opcode, const unsigned char *data, int size) {
    unsigned char frame[6 + 125] = {0x80 | opcode, 0x80 | size, MASK[0], MASK[1], MASK[2], MASK[3]};
    for (int i = 0; i < size; i++) frame[6 + i] = data[i] ^ MASK[i & 3];
    say(conn, (char *)frame, 6 + size);
}

static void frame_heard(Call *call, const unsigned char *data, int64_t size, int64_t now) {
    int64_t stamp;
    uint32_t number;
    frames_heard++;
    if (listening) {
        if (call->heard) note(&gaps, now - call->heard);
        call->heard = now;
        return;
    }
    if (size != FRAME) { frames_wrong++; return; }
    memcpy(&stamp, data, 8);
    memcpy(&number, data + 8, 4);
    note(&echo, now - stamp);
    frames_back++;
    if (number != call->next) frames_wrong++;
    call->next = number + 1;
}

static void media_heard(Conn *conn, int64_t now) {
    int at = 0;
    Call *call = conn->call;
    if (!conn->shaken) {
        char *end = memmem(conn->in, conn->held, "\r\n\r\n", 4);
        if (!end) return;
        if (strncmp(conn->in, "HTTP/1.1 101", 12)) {
            if (failed < 3) fprintf(stderr, "refused: %.*s\n", (int)(end - conn->in), conn->in);
            shut(conn);
            return;
        }
        conn->shaken = true;
        at = end + 4 - conn->in;
        came_up(call);
    }
    while (conn->fd >= 0 && conn->held - at >= 2) {
        const unsigned char *head = (unsigned char *)conn->in + at;
        int opcode = head[0] & 15, start = 2, have = conn->held - at;
        int64_t size = head[1] & 127;
        if (size == 126) { if (have < 4) break; size = head[2] << 8 | head[3]; start = 4; }
        else if (size == 127) { if (have < 10) break; size = 0; for (int i = 2; i < 10; i++) size = size << 8 | head[i]; start = 10; }
        if (have < start + size) break;
        at += start + size;
        if (opcode == 2) frame_heard(call, head + start, size, now);
        else if (opcode == 9) send_masked(conn, 10, head + start, size);
        else if (opcode == 8) { send_masked(conn, 8, head + start, size); shut(conn); return; }
    }
    if (conn->fd < 0) return;
    memmove(conn->in, conn->in + at, conn->held - at);
    conn->held -= at;
}

static void ready(Conn *conn, uint32_t what) {
    static char piece[PIECE];
    if (conn->fd < 0) return;
    if (what & EPOLLOUT) {
        conn->connecting = false;
        int at = 0;
        while (at < conn->queued) {
            ssize_t wrote = write(conn->fd, conn->out + at, conn->queued - at);
            if (wrote < 0 && errno == EAGAIN) break;
            if (wrote < 0) { shut(conn); return; }
            at += wrote; bytes_taken += wrote;
        }
        if (at) { memmove(conn->out, conn->out + at, conn->queued - at); conn->queued -= at; }
        if (!conn->queued) { conn->waits = false; watch(conn, EPOLL_CTL_MOD); }
    }
    if (what & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t size = read(conn->fd, piece, sizeof piece);
        if (size < 0 && errno == EAGAIN) return;
        if (size <= 0) { shut(conn); return; }
        int64_t now = now_ns();
        append(&conn->in, &conn->held, &conn->in_room, piece, size);
        if (conn->media) media_heard(conn, now); else control_heard(conn);
    }
}

/* -- what is due */

static void speak(int64_t now) {
    static unsigned char wire[WIRE] = {0x82, 0x80 | 126, FRAME >> 8, FRAME & 255};
    int64_t step = 20 * MS / SLOTS;
    if (!wire[4]) {
        memcpy(wire + 4, MASK, 4);
        for (int i = 0; i < FRAME; i++) wire[8 + i] = (i & 1 ? (i * 37 & 15) : (i * 91 & 255)) ^ MASK[i & 3];
    }
    for (; slot_began + (slot_number + 1) * step <= now; slot_number++) {
        int at = (slot_number + 1) % SLOTS, kept = 0;
        if (doing == MEASURING) note(&late, now - (slot_began + (slot_number + 1) * step));
        for (int i = 0; i < slot_count[at]; i++) {
            Call *call = slots[at][i];
            if (call->hung || call->gone || call->media.fd < 0) continue;
            slots[at][kept++] = call;
            int64_t stamp = now_ns();
            unsigned char head[12];
            memcpy(head, &stamp, 8);
            memcpy(head + 8, &call->sent, 4);
            for (int b = 0; b < 12; b++) wire[8 + b] = head[b] ^ MASK[b & 3];
            say(&call->media, (char *)wire, WIRE);
            call->sent++; frames_sent++;
        }
        slot_count[at] = kept;
    }
}

static bool send_event(void) {
    if (!live_count) return false;
    Call *call = live[event_at % live_count];
    say_blob(call, &events[event_at % event_count]);
    event_at++; events_sent++;
    return true;
}

static void hang_up(int64_t now) {
    char line[64];
    if (!live_count) { wanted = begun; return; }
    Call *call = live[0];
    leave_live(call);
    call->hung = true;
    int size = sprintf(line, "%s[%ld, %lld]", begun ? ", " : "", call->number, (long long)now_ns());
    say_blob(call, &hangup);
    if (told_size + size > told_room) told = grown(told, told_room = 2 * (told_room + size));
    memcpy(told + told_size, line, size);
    told_size += size;
    begun++;
    hang_up_later(call, now + LOOKS_EVERY);
}

static void flood(void) {
    for (int i = 0; i < live_count; i++)
        for (int burst = 0; burst < 64 && i < live_count && live[i]->control.fd >= 0 && !live[i]->control.queued; burst++) {
            say_blob(live[i], &events[event_at++ % event_count]);
            events_sent++;
        }
}

static void finished(void) {
    struct timespec cpu;
    int64_t now = now_ns();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    double spent = (cpu.tv_sec - cpu_began.tv_sec) + (cpu.tv_nsec - cpu_began.tv_nsec) / 1e9;
    printf("{\"seconds\": %.4f, \"load_cpu_s\": %.4f, \"live\": %d, \"placed\": %ld, \"failed\": %ld, \"events\": %ld, "
           "\"bytes\": %lld, \"stuck\": %ld, \"sent\": %ld, \"back\": %ld, \"wrong\": %ld, \"heard\": %ld, \"hangups\": [%.*s]",
           (now - did_begin) / 1e9, spent, live_count, placed, failed, events_sent, bytes_taken, stuck, frames_sent,
           frames_back, frames_wrong, frames_heard, (int)told_size, told_size ? told : "");
    print_series("echo_ms", &echo); print_series("late_ms", &late); print_series("gap_ms", &gaps); print_series("setup_ms", &took);
    printf("}\n");
    fflush(stdout);
    doing = NOTHING;
}

static void tick(int64_t now) {
    if (talking) speak(now);
    if (background > 0) {
        long due = (now - background_began) / 1e9 * background;
        while (background_sent < due && send_event()) background_sent++;
    }
    while (due_first && due_first->ends <= now) {
        Call *call = due_first;
        if (!(due_first = call->after)) due_last = NULL;
        if (!call->hung && !call->gone) {  /* a short call of a soak has talked enough */
            leave_live(call);
            call->hung = true;
            say_blob(call, &hangup);
        }
        end_call(call, now);
    }
    while (close_first && close_first->closes <= now) {
        Call *call = close_first;
        if (!(close_first = call->after)) close_last = NULL;
        shut(&call->control); shut(&call->media);
    }
    long due = rate > 0 ? (long)((now - did_begin) / 1e9 * rate) + 1 : wanted;
    switch (doing) {
    case PLACING:
        while (begun < wanted && in_flight < limit_in_flight) { place(); begun++; }
        if (begun == wanted && !opening) finished();
        break;
    case SETTING_UP:
        while (now < does_end && in_flight < limit_in_flight && open_calls < 4000 && (rate <= 0 || begun < due)) { place(); begun++; }
        if (now >= does_end && (!opening || now > does_end + 3 * S)) finished();
        break;
    case SOAKING:
        while (begun < wanted && open_calls < limit_in_flight) { place(); begun++; }
        if (begun == wanted && !open_calls) finished();
        break;
    case EVENTS:
        while (begun < wanted && begun < due && send_event()) begun++;
        if (begun == wanted || !live_count) {
            for (int i = 0; i < live_count; i++) if (live[i]->control.queued) return;
            finished();
        }
        break;
    case HANGING:
        if (begun < wanted && begun < due) hang_up(now);
        if (begun >= wanted && !due_first && (!open_calls || now > did_begin + (int64_t)(wanted / rate * S) + S / 5)) finished();
        break;
    case FLOODING:
        flood();
        if (now >= does_end) finished();
        break;
    case MEASURING:
        if (now >= does_end) finished();
        break;
    case NOTHING:
        break;
    }
}

static void told_to(char *line) {
    char word[32] = "";
    double a = 0, b = 0, c = 0;
    sscanf(line, "%31s %lf %lf %lf", word, &a, &b, &c);
    placed = failed = begun = events_sent = stuck = frames_sent = frames_back = frames_wrong = frames_heard = 0;
    bytes_taken = 0;
    told_size = echo.count = late.count = gaps.count = took.count = 0;
    did_begin = now_ns();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu_began);
    wanted = 0; rate = 0; does_end = 0; limit_in_flight = 50;
    if (!strcmp(word, "place")) { doing = PLACING; wanted = a; if (b) limit_in_flight = b; }
    else if (!strcmp(word, "measure")) { doing = MEASURING; does_end = did_begin + a * S; }
    else if (!strcmp(word, "events")) { doing = EVENTS; wanted = a; rate = b; event_at = 0; }
    else if (!strcmp(word, "hangup")) { doing = HANGING; wanted = a; rate = b; }
    else if (!strcmp(word, "setups")) { doing = SETTING_UP; does_end = did_begin + a * S; limit_in_flight = b; rate = c; }
    else if (!strcmp(word, "soak")) { doing = SOAKING; wanted = a; limit_in_flight = b; }
    else if (!strcmp(word, "flood")) { doing = FLOODING; does_end = did_begin + a * S; event_at = 0; }
    else {
        if (!strcmp(word, "talk")) { talking = a; slot_began = now_ns(); slot_number = 0; }
        else if (!strcmp(word, "listen")) listening = a;
        else if (!strcmp(word, "background")) { background = a; background_began = now_ns(); background_sent = 0; }
        else { fprintf(stderr, "no such command: %s\n", line); exit(1); }
        finished();
    }
}

int main(int count, char **words) {
    struct epoll_event ready_ones[256], timer_event = {.events = EPOLLIN}, line_event = {.events = EPOLLIN};
    struct itimerspec every = {{0, 1000000}, {0, 1000000}};
    struct rlimit files;
    static char line[4096];
    int line_size = 0;
    if (count != 5) { fprintf(stderr, "calls SCRIPT CONTROL_PORT MEDIA_PORT FIRST\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_script(words[1]);
    control_port = atoi(words[2]); media_port = atoi(words[3]); first_number = next_number = atol(words[4]);
    epoll = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    timerfd_settime(timer, 0, &every, NULL);
    timer_event.data.ptr = &timer;
    line_event.data.ptr = line;
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &timer_event);
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &line_event);
    for (;;) {
        int n = epoll_wait(epoll, ready_ones, 256, -1);
        for (int i = 0; i < n; i++) {
            void *who = ready_ones[i].data.ptr;
            if (who == &timer) {
                uint64_t passed;
                if (read(timer, &passed, sizeof passed) > 0) tick(now_ns());
            } else if (who == line) {
                ssize_t size = read(0, line + line_size, sizeof line - 1 - line_size);
                if (size <= 0) return 0;
                line[line_size += size] = 0;
                char *end = strchr(line, '\n');
                if (end) { *end = 0; line_size = 0; told_to(line); }
            } else ready(who, ready_ones[i].events);
        }
    }
}
