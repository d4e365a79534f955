/* An NVTXW backend that writes each call it gets as one line of text: what a session tells a tool.
 *
 * Built by tests/test_exporting_nsys.py; the file to write is in RECORDER_OUTPUT. The table has the
 * order of version 3.2's interface (nvtxw3.h); entries that the lanes must not need stay NULL.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { size_t size; const char *name; const char *config; } Session;
typedef struct { size_t size; const char *name; } Domain;
typedef struct { size_t size; const char *path; uint64_t parent; uint64_t id; } Scope;
typedef struct { size_t size; const char *name; void *domain; uint64_t scope; } Stream;
typedef struct { uint64_t schema; size_t size; const void *payload; } Payload;
typedef struct { int64_t begin, end; uint32_t color, category; const char *message; } Range;

static FILE *out;
static uint64_t numbers = 100; /* of scopes and schemas; handles are pointers to names */
static int fail_streams;

static int session_begin(const Session *session, void **handle) {
    out = fopen(getenv("RECORDER_OUTPUT"), "w");
    fail_streams = getenv("RECORDER_FAILS") != NULL;
    if (!out) return 1;
    fprintf(out, "session %s\n", session->name);
    *handle = strdup(session->name);
    return 0;
}
static int session_end(void *session) {
    fprintf(out, "end\n");
    fclose(out);
    if (getenv("RECORDER_REPORT")) { /* the session's name is the report's */
        char path[4096];
        snprintf(path, sizeof path, "%s.nsys-rep", (char *)session);
        FILE *report = fopen(path, "w");
        if (!report) return 1;
        fputs("a report", report);
        fclose(report);
    }
    return 0;
}
static int domain_register(void *session, const Domain *domain, void **handle) {
    fprintf(out, "domain %s\n", domain->name);
    *handle = strdup(domain->name);
    return 0;
}
static int category_register(void *domain, uint32_t category, const char *name) {
    fprintf(out, "category %u %s\n", category, name);
    return 0;
}
static int string_register(void *domain, const char *text, void **handle) {
    *handle = strdup(text);
    return 0;
}
static int scope_register(void *domain, const Scope *scope, uint64_t *id) {
    *id = ++numbers;
    fprintf(out, "scope %lu %s\n", *id, scope->path);
    return 0;
}
static int schema_register(void *domain, const void *schema, uint64_t *id) {
    *id = ++numbers;
    return 0;
}
static int stream_open(void *session, const Stream *stream, void **handle) {
    if (fail_streams) return 1;
    fprintf(out, "stream %lu %s\n", stream->scope, stream->name);
    *handle = strdup(stream->name);
    return 0;
}
static int stream_close(void *stream) { return 0; }
static int event_write(void *stream, const Payload *payloads, size_t count) {
    if (count != 1 || payloads[0].size < sizeof(Range)) return 1;
    const Range *range = payloads[0].payload;
    fprintf(out, "range %ld %ld %08x %u %s\n", range->begin, range->end, range->color,
            range->category, range->message);
    return 0;
}

static const void *table[64] = {
    session_begin, session_end, domain_register, category_register, string_register,
    NULL /* ResourceRegister */, scope_register, schema_register, NULL /* EnumRegister */,
    NULL /* CounterRegister */, NULL /* TimeDomainRegister */, stream_open, stream_close,
    event_write,
};

int32_t nvtxwGetInterface(int32_t version, const void **interface) {
    *interface = table;
    return 0;
}
