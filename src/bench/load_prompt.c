#include "bench/load_prompt.h"

#include <string.h>
#include "base/json.h"

bool bench_target_is_chat(const struct bench_target *t)
{
    static const char tail[] = "/chat/completions";
    size_t n = strlen(t->endpoint), k = sizeof tail - 1;
    return n >= k && strcmp(t->endpoint + n - k, tail) == 0;
}

static const char *const words[64] = {
    "the", "of", "and", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are", "as", "with",
    "his", "they", "at", "be", "this", "have", "from", "or", "one", "had", "by", "word", "but", "not", "what", "all",
    "were", "we", "when", "your", "can", "said", "there", "use", "an", "each", "which", "she", "do", "how", "their", "if",
    "will", "up", "other", "about", "out", "many", "then", "them", "these", "so", "some", "her", "would", "make", "like", "him",
};

bool bench_prompt_append(struct buf *b, bool chat, struct rng *r, int32_t n, int32_t vocab, bool *some)
{
    for (int32_t i = 0; i < n && !b->failed; i++, *some = true) {
        if (chat)
            buf_printf(b, "%s%s", *some ? " " : "", words[rng_next_below(r, 64)]);
        else
            buf_printf(b, "%s%d", *some ? "," : "", (int)rng_next_below(r, (uint64_t)vocab));
    }
    return !b->failed;
}

bool bench_body_write(struct buf *b, const struct bench_target *t, const struct buf *tokens, const json_t *prompt, int32_t max_tokens)
{
    bool chat = bench_target_is_chat(t);
    buf_puts(b, "{\"model\":");
    json_write_str(b, t->model, strlen(t->model));
    buf_puts(b, chat ? ",\"messages\":[{\"role\":\"user\",\"content\":" : ",\"prompt\":");
    if (prompt) {
        json_write(prompt, b);
    } else {
        buf_putc(b, chat ? '"' : '[');
        buf_append(b, tokens->data ? tokens->data : "", tokens->len);
        buf_putc(b, chat ? '"' : ']');
    }
    buf_puts(b, chat ? "}]" : "");
    buf_printf(b, ",\"max_tokens\":%d,\"temperature\":%.6g", (int)max_tokens, t->temperature);
    buf_puts(b, t->ignore_eos ? ",\"ignore_eos\":true" : "");
    return buf_puts(b, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
}

bool bench_vocab_probe(struct bench_http *c, const struct bench_target *t, int32_t *vocab, struct err *e)
{
    static const int32_t sizes[] = {10000, 4096, 2048, 1024, 512, 256};
    struct bench_call call = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct buf body, tokens;
        buf_init(&body, 0);
        buf_init(&tokens, 0);
        buf_printf(&tokens, "%d", sizes[i] - 1);
        bool ok = bench_body_write(&body, t, &tokens, NULL, 1) && !tokens.failed;
        buf_free(&tokens);
        if (!ok) {
            buf_free(&body);
            return err_set(e, ERR_NOMEM, "out of memory");
        }
        ok = bench_http_run(c, t->endpoint, &body, &call, e);
        bench_call_free(&call);
        if (!ok)
            return false;
        if (call.ok) {
            *vocab = sizes[i];
            return true;
        }
        if (call.status != 400 && call.status != 422)
            break;
    }
    return err_set(e, ERR_INVALID, "%s takes no prompt of one token id: %s", t->endpoint, call.error);
}
