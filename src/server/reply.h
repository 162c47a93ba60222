/* server/reply.h - an assistant's text, as it comes, taken apart: what it thought, what it says, which functions it calls.
 *
 * Models write calls and thoughts into their text in the way their template taught them.  A reply reads that text in pieces of any
 * size and hands out what is certain; what could still become the beginning of a call is held back.  The pieces do not change the
 * outcome.  A call whose beginning is understood is streamed, its arguments as they come; one that turns out not to be a
 * call is content, with the marks around it.
 *
 *   hermes    <tool_call>{"name": "f", "arguments": {..}}</tool_call>                Qwen, Hermes, SmolLM3
 *   llama3    {"name": "f", "parameters": {..}}, several with ';' between            Llama 3.1; the whole reply, or behind <|python_tag|>
 *   mistral   [TOOL_CALLS][{"name": "f", "arguments": {..}}, ..], or [TOOL_CALLS]f[ARGS]{..}
 *   pythonic  [f(a=1, b="x"), g()]                                                   Llama 3.2 and 4; the whole reply
 *
 *   deepseek_r1   everything up to </think>, <think> or not
 *   qwen3         what is between <think> and </think> */
#ifndef QUIRE_SERVER_REPLY_H
#define QUIRE_SERVER_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include "base/buf.h"

enum reply_calls { REPLY_CALLS_NONE, REPLY_CALLS_HERMES, REPLY_CALLS_LLAMA3, REPLY_CALLS_MISTRAL, REPLY_CALLS_PYTHONIC, REPLY_CALLS_COUNT };
enum reply_thoughts { REPLY_THOUGHTS_NONE, REPLY_THOUGHTS_DEEPSEEK_R1, REPLY_THOUGHTS_QWEN3, REPLY_THOUGHTS_COUNT };

/* By the names above, and those that other servers give them (llama3_json, llama4_pythonic, qwen3_coder is not one of them). */
bool reply_calls_parse(const char *name, enum reply_calls *out);
bool reply_thoughts_parse(const char *name, enum reply_thoughts *out);
const char *reply_calls_name(enum reply_calls c);
const char *reply_thoughts_name(enum reply_thoughts t);
/* What a template teaches. */
enum reply_calls reply_calls_detect(const char *template_source);
enum reply_thoughts reply_thoughts_detect(const char *template_source);

enum reply_start { REPLY_START_OPEN, REPLY_START_THINKING, REPLY_START_TALKING };
/* Whether the prompt's end has begun a thought (<think>), closed it (</think>), or neither. */
enum reply_start reply_start_of(const char *prompt, size_t len);

/* Text is valid during the call only.  index: calls from 0 on. */
struct reply_sink {
    void *ctx;
    void (*content)(void *ctx, const char *text, size_t len);
    void (*thought)(void *ctx, const char *text, size_t len);
    void (*call)(void *ctx, int index, const char *name, size_t len);
    void (*arguments)(void *ctx, int index, const char *text, size_t len);   /* pieces of JSON */
};

struct reply;
/* NULL: no memory.  one: at most one call (parallel_tool_calls false); others are dropped. */
struct reply *reply_open(enum reply_calls calls, enum reply_thoughts thoughts, enum reply_start start, bool one, const struct reply_sink *sink);
void reply_close(struct reply **r);
/* end: nothing follows.  False: out of memory. */
bool reply_feed(struct reply *r, const char *text, size_t len, bool end);
int reply_n_calls(const struct reply *r);

/* "f(a=1, b=[True, 'x'])" to its name and JSON arguments, appended.  False: it is not such a call (or no memory: out->failed). */
bool reply_python_call(const char *text, size_t len, struct buf *name, struct buf *arguments);
/* Bytes of the call that text begins with, its ')' included; 0: not yet complete; -1: not a call. */
ptrdiff_t reply_python_length(const char *text, size_t len);

#endif
