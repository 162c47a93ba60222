/* tok/chat.h - chat templates: messages to the prompt text a model was trained on.
 *
 * Rendering equals Hugging Face's apply_chat_template: the template sees messages, tools, documents,
 * add_generation_prompt, the special tokens by name (bos_token, ...), and any kwargs.  Message content given as
 * a list of {"type":"text","text":..} parts is passed on as it is when the template handles lists,
 * and joined to one string otherwise ("auto", as vLLM's --chat-template-content-format). */
#ifndef QUIRE_TOK_CHAT_H
#define QUIRE_TOK_CHAT_H

#include <jansson.h>
#include "tok/tok.h"

struct chat;

struct chat_render_opts {
    const json_t *messages;        /* array of {role, content, ...}; required */
    const json_t *tools;           /* array or NULL */
    const json_t *documents;       /* array or NULL */
    const json_t *kwargs;          /* object of extra variables or NULL */
    bool add_generation_prompt;
    bool continue_final_message;   /* cut the rendering after the last message's content */
    int64_t now_unix;              /* for strftime_now */
};

/* source NULL: the tokenizer's own template (ERR_NOT_FOUND when it has none).  t may be NULL when source is
 * given: then special tokens come from the three strings (NULL = ""). */
bool chat_open(struct chat **out, const struct tok *t, const char *source, size_t len,
               const char *bos, const char *eos, const char *unk, struct err *e);
void chat_close(struct chat **c);
bool chat_render(const struct chat *c, const struct chat_render_opts *o, struct buf *out, struct err *e);

#endif
