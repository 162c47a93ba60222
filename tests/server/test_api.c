/* The OpenAI API without HTTP, over an engine with the built-in model. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/json.h"
#include "base/mem.h"
#include "server/api.h"
#include "server/api_fields.h"
#include "api_ask.h"

static struct engine *eng;
static struct api *api;

static int open_all(void **state)
{
    struct engine_opts o;
    (void)state;
    engine_opts_default(&o);
    o.max_num_seqs = 16;
    o.num_kv_blocks = 257;
    o.n_threads = 2;
    return api_ask_open(&eng, &api, &o, (struct api_opts){.use_generation_config = true, .prompt_tokens_details = true}) ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    api_close(&api);
    engine_close(&eng);
    return 0;
}

/* ---- running a request ---- */

static char *run(enum api_endpoint endpoint, const char *body, int *status) { return api_ask_text(api, endpoint, body, status); }
static json_t *ask(enum api_endpoint endpoint, int want_status, const char *body) { return api_ask(api, endpoint, want_status, body); }

static const char *str(const json_t *j, const char *key) { return json_string_value(json_object_get(j, key)); }
static json_t *choice(const json_t *j, size_t i) { return json_array_get(json_object_get(j, "choices"), i); }
static long long usage(const json_t *j, const char *key) { return json_integer_value(json_object_get(json_object_get(j, "usage"), key)); }

static void assert_error(enum api_endpoint endpoint, int status, const char *param, const char *message_part, const char *body)
{
    json_t *j = ask(endpoint, status, body), *e = json_object_get(j, "error");
    const char *p = str(e, "param");
    if (strcmp(p ? p : "", param ? param : "") != 0 || !strstr(str(e, "message"), message_part))
        fail_msg("%s\n-> param %s, message %s", body, p ? p : "null", str(e, "message"));
    assert_int_equal(json_integer_value(json_object_get(e, "code")), status);
    assert_string_equal(str(e, "type"), api_error_type(status));
    json_decref(j);
}

/* ---- errors ---- */

static void every_code_has_a_status(void **state)
{
    (void)state;
    for (int c = ERR_OK + 1; c < ERR_N_CODES; c++) {
        assert_in_range(api_error_status((enum err_code)c), 400, 599);
        assert_non_null(api_error_type(api_error_status((enum err_code)c)));
    }
    assert_int_equal(api_error_status(ERR_OVERLOADED), 429);
    assert_int_equal(api_error_status(ERR_DRAINING), 503);
    assert_int_equal(api_error_status(ERR_TIMEOUT), 504);
    assert_int_equal(api_error_status(ERR_TOO_LARGE), 400);
}

static void error_bodies_are_json(void **state)
{
    (void)state;
    struct api_error e;
    struct buf b;
    struct err err;
    buf_init(&b, 0);
    char longest[3000];
    memset(longest, 'x', sizeof longest);
    memcpy(longest + sizeof longest - 4, "\xe2\x82\xac", 4);
    api_fail(&e, ERR_INVALID, "field", "quote \" back \\ line\n %s", longest);
    assert_true(api_error_write(&e, &b));
    json_t *j = json_parse(b.data, b.len, &err);
    assert_non_null(j);
    assert_string_equal(str(json_object_get(j, "error"), "param"), "field");
    json_decref(j);
    buf_free(&b);
}

static void wrong_types_name_the_field(void **state)
{
    (void)state;
    static const char *const fields[][2] = {
        {"max_tokens", "\"3\""}, {"max_tokens", "1.5"}, {"n", "true"}, {"n", "0"}, {"temperature", "\"hot\""}, {"temperature", "-1"},
        {"top_p", "1.01"}, {"top_p", "0"}, {"top_k", "-2"}, {"min_p", "2"}, {"typical_p", "[]"}, {"repetition_penalty", "0"},
        {"frequency_penalty", "2.5"}, {"presence_penalty", "-2.5"}, {"stream", "1"}, {"stop", "5"}, {"stop", "[\"a\",1]"}, {"stop", "\"\""},
        {"seed", "\"x\""}, {"logit_bias", "[]"}, {"logit_bias", "{\"999999\":1}"}, {"logit_bias", "{\"5\":\"x\"}"}, {"logit_bias", "{\"x\":1}"},
        {"stop_token_ids", "[1,\"2\"]"}, {"stop_token_ids", "[-1]"}, {"allowed_token_ids", "[]"}, {"bad_words", "[\"\"]"}, {"bad_words", "[1]"},
        {"model", "7"}, {"echo", "0"}, {"best_of", "0"}, {"logprobs", "-1"}, {"logprobs", "true"}, {"prompt_logprobs", "-1"},
        {"truncate_prompt_tokens", "0"}, {"truncate_prompt_tokens", "-2"}, {"truncate_prompt_tokens", "99999"}, {"cache_salt", "\"\""},
        {"logprobs_mode", "\"other\""}, {"suffix", "\"x\""}, {"guided_json", "[1]"}, {"guided_json", "{\"type\":\"thing\"}"},
        {"guided_regex", "\"(a\""}, {"guided_choice", "[]"}, {"structured_outputs", "{\"regex\":1}"}, {"structured_outputs", "{\"regexp\":\"a\"}"},
        {"response_format", "{\"type\":\"xml\"}"}, {"response_format", "{}"}, {"priority", "\"high\""}, {"min_tokens", "100"},
        {"logprobs", "1000"}, {"stream_options", "{\"include_usage\":true}"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"prompt\":\"a\",\"%s\":%s}", fields[i][0], fields[i][1]);
        assert_error(API_COMPLETIONS, 400, fields[i][0], fields[i][0], body);
    }
}

static void prompts_are_checked(void **state)
{
    (void)state;
    assert_error(API_COMPLETIONS, 400, NULL, "not valid JSON", "{\"prompt\":");
    assert_error(API_COMPLETIONS, 400, NULL, "object", "[1]");
    assert_error(API_COMPLETIONS, 400, "prompt", "required", "{}");
    assert_error(API_COMPLETIONS, 400, "prompt", "empty", "{\"prompt\":[]}");
    assert_error(API_COMPLETIONS, 400, "prompt", "prompt[1]", "{\"prompt\":[\"a\",1]}");
    assert_error(API_COMPLETIONS, 400, "prompt", "expected", "{\"prompt\":{}}");
    assert_error(API_COMPLETIONS, 400, "prompt", "outside the vocabulary", "{\"prompt\":[1,2,1000000]}");
    assert_error(API_COMPLETIONS, 400, "prompt", "no tokens", "{\"prompt\":[[1],[]]}");
    assert_error(API_COMPLETIONS, 404, "model", "The model `nope` does not exist.", "{\"prompt\":\"a\",\"model\":\"nope\"}");
    assert_error(API_COMPLETIONS, 400, "max_tokens", "at least 1", "{\"prompt\":\"a\",\"max_tokens\":0}");
    assert_error(API_COMPLETIONS, 400, "best_of", "at least n", "{\"prompt\":\"a\",\"n\":3,\"best_of\":2}");
}

static void context_overflow_is_the_documented_400(void **state)
{
    (void)state;
    int limit = engine_info(eng)->max_model_len;
    char message[256], *body = malloc((size_t)limit * 8 + 256);
    assert_error(API_COMPLETIONS, 400, "prompt", "maximum context length", "{\"prompt\":[5,6,7],\"max_tokens\":100000}");
    snprintf(message, sizeof message,
             "This model's maximum context length is %d tokens. However, you requested %d tokens (3 tokens in the prompt, %d in the completion). "
             "Please reduce the length of the prompt or completion.", limit, limit + 1, limit - 2);
    sprintf(body, "{\"prompt\":[5,6,7],\"max_tokens\":%d}", limit - 2);
    assert_error(API_COMPLETIONS, 400, "prompt", message, body);
    char *at = body + sprintf(body, "{\"max_tokens\":null,\"prompt\":[5");
    for (int i = 1; i < limit; i++)
        at += sprintf(at, ",5");
    strcpy(at, "]}");
    snprintf(message, sizeof message, "However, your prompt has %d tokens. Please reduce its length.", limit);
    assert_error(API_COMPLETIONS, 400, "prompt", message, body);
    /* far too many bytes: refused before tokenizing */
    size_t n = 4 << 20;
    char *big = malloc(n + 128);
    at = big + sprintf(big, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    memset(at, 'x', n);
    strcpy(at + n, "\"}]}");
    assert_error(API_CHAT, 400, "messages", "at least", big);
    free(big);
    /* and the engine goes on */
    json_t *j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"Once\",\"max_tokens\":2}");
    assert_int_equal(usage(j, "completion_tokens"), 2);
    json_decref(j);
    free(body);
}

static void unknown_fields_are_ignored(void **state)
{
    (void)state;
    json_decref(ask(API_COMPLETIONS, 200, "{\"prompt\":\"a\",\"max_tokens\":1,\"frobnicate\":[1],\"user\":\"me\",\"metadata\":{},\"guided_json\":null}"));
}

/* ---- completions ---- */

static void completion_shape(void **state)
{
    (void)state;
    json_t *j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"Once upon a time\",\"max_tokens\":7,\"temperature\":0}"), *c = choice(j, 0);
    assert_int_equal(strncmp(str(j, "id"), "cmpl-", 5), 0);
    assert_int_equal(strlen(str(j, "id")), 5 + 32);
    assert_string_equal(str(j, "object"), "text_completion");
    assert_string_equal(str(j, "model"), "quire-builtin");
    assert_string_equal(str(c, "finish_reason"), "length");
    assert_true(json_is_null(json_object_get(c, "stop_reason")));
    assert_true(json_is_null(json_object_get(c, "logprobs")));
    assert_int_equal(usage(j, "completion_tokens"), 7);
    assert_int_equal(usage(j, "total_tokens"), usage(j, "prompt_tokens") + 7);
    assert_true(strlen(str(c, "text")) > 7);
    json_decref(j);
    j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"Once upon a time\",\"temperature\":0}");
    assert_int_equal(usage(j, "completion_tokens"), 16); /* the default */
    json_decref(j);
}

static void prompts_times_choices(void **state)
{
    (void)state;
    json_t *j = ask(API_COMPLETIONS, 200, "{\"prompt\":[\"Once upon\",\"The dog\",\"A boy\"],\"n\":2,\"max_tokens\":4,\"seed\":3,\"return_token_ids\":true}");
    assert_int_equal(json_array_size(json_object_get(j, "choices")), 6);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(json_integer_value(json_object_get(choice(j, i), "index")), i);
        assert_int_equal(json_array_size(json_object_get(choice(j, i), "token_ids")), 4);
    }
    assert_true(json_equal(json_object_get(choice(j, 0), "prompt_token_ids"), json_object_get(choice(j, 1), "prompt_token_ids")));
    assert_false(json_equal(json_object_get(choice(j, 1), "prompt_token_ids"), json_object_get(choice(j, 2), "prompt_token_ids")));
    assert_int_equal(usage(j, "completion_tokens"), 24);
    json_decref(j);
}

/* A prompt as text, as its ids, and as one of several: the same answer. */
static void text_and_ids_agree(void **state)
{
    (void)state;
    json_t *a = ask(API_COMPLETIONS, 200, "{\"prompt\":\"The little dog\",\"max_tokens\":8,\"temperature\":0,\"return_token_ids\":true}");
    char body[512], *ids = json_dumps(json_object_get(choice(a, 0), "prompt_token_ids"), 0);
    snprintf(body, sizeof body, "{\"prompt\":[%s,[7,8,9]],\"max_tokens\":8,\"temperature\":0}", ids);
    json_t *b = ask(API_COMPLETIONS, 200, body);
    assert_string_equal(str(choice(a, 0), "text"), str(choice(b, 0), "text"));
    free(ids);
    json_decref(a);
    json_decref(b);
}

static void echo_gives_the_prompt(void **state)
{
    (void)state;
    json_t *j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"The little dog\",\"max_tokens\":0,\"echo\":true}");
    assert_string_equal(str(choice(j, 0), "text"), "The little dog");
    assert_int_equal(usage(j, "completion_tokens"), 0);
    json_decref(j);
    j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"The little dog\",\"max_tokens\":2,\"echo\":true,\"logprobs\":2,\"temperature\":0}");
    json_t *lp = json_object_get(choice(j, 0), "logprobs");
    size_t n = (size_t)usage(j, "total_tokens");
    static const char *const parts[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(json_array_size(json_object_get(lp, parts[i])), n);
    assert_true(json_is_null(json_array_get(json_object_get(lp, "token_logprobs"), 0)));
    assert_true(json_is_null(json_array_get(json_object_get(lp, "top_logprobs"), 0)));
    assert_true(json_is_real(json_array_get(json_object_get(lp, "token_logprobs"), 1)));
    /* Token texts give the whole text, and offsets say where each begins; the BOS before it has no place in it. */
    char text[512] = "";
    assert_int_equal(json_integer_value(json_array_get(json_object_get(lp, "text_offset"), 0)), 0);
    for (size_t i = 1; i < n; i++) {
        assert_int_equal(json_integer_value(json_array_get(json_object_get(lp, "text_offset"), i)), strlen(text));
        strcat(text, json_string_value(json_array_get(json_object_get(lp, "tokens"), i)));
    }
    assert_string_equal(text, str(choice(j, 0), "text"));
    json_decref(j);
    /* The prompt's own values do not depend on whether anything is generated. */
    json_t *a = ask(API_COMPLETIONS, 200, "{\"prompt\":\"The little dog\",\"max_tokens\":0,\"echo\":true,\"logprobs\":1,\"n\":2}");
    assert_int_equal(json_array_size(json_object_get(a, "choices")), 2);
    assert_true(json_equal(json_object_get(choice(a, 0), "logprobs"), json_object_get(choice(a, 1), "logprobs")));
    assert_true(json_is_real(json_array_get(json_object_get(json_object_get(choice(a, 1), "logprobs"), "token_logprobs"), 1)));
    json_decref(a);
}

static void prompt_logprobs_shape(void **state)
{
    (void)state;
    json_t *j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"The little dog\",\"max_tokens\":1,\"prompt_logprobs\":3}");
    json_t *list = json_object_get(choice(j, 0), "prompt_logprobs"), *one = json_array_get(list, 1);
    assert_int_equal(json_array_size(list), usage(j, "prompt_tokens"));
    assert_true(json_is_null(json_array_get(list, 0)));
    assert_in_range(json_object_size(one), 3, 4);
    json_t *entry = json_object_iter_value(json_object_iter(one));
    assert_true(json_is_real(json_object_get(entry, "logprob")) && json_is_integer(json_object_get(entry, "rank")) &&
                json_is_string(json_object_get(entry, "decoded_token")));
    json_decref(j);
    j = ask(API_COMPLETIONS, 200, "{\"prompt\":[5],\"max_tokens\":1,\"prompt_logprobs\":3}");
    assert_int_equal(json_array_size(json_object_get(choice(j, 0), "prompt_logprobs")), 1);
    json_decref(j);
}

static void logprobs_are_of_the_sampled_token(void **state)
{
    (void)state;
    json_t *j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"The\",\"max_tokens\":6,\"logprobs\":3,\"temperature\":0,\"return_tokens_as_token_ids\":true,\"return_token_ids\":true}");
    json_t *lp = json_object_get(choice(j, 0), "logprobs"), *tokens = json_object_get(lp, "tokens");
    for (size_t i = 0; i < 6; i++) {
        char want[32];
        const char *token = json_string_value(json_array_get(tokens, i));
        json_t *tops = json_array_get(json_object_get(lp, "top_logprobs"), i);
        snprintf(want, sizeof want, "token_id:%lld", (long long)json_integer_value(json_array_get(json_object_get(choice(j, 0), "token_ids"), i)));
        assert_string_equal(token, want);
        double x = json_real_value(json_array_get(json_object_get(lp, "token_logprobs"), i));
        assert_true(x <= 0 && fabs(json_real_value(json_object_get(tops, token)) - x) < 1e-12);
        assert_int_equal(json_object_size(tops), 3);
        const char *key;
        json_t *v;
        json_object_foreach(tops, key, v)
            assert_true(json_real_value(v) <= x); /* greedy: nothing is likelier */
    }
    json_decref(j);
}

static void stop_strings_cross_tokens(void **state)
{
    (void)state;
    json_t *whole = ask(API_COMPLETIONS, 200, "{\"prompt\":\"Once upon a time\",\"max_tokens\":40,\"temperature\":0}");
    const char *text = str(choice(whole, 0), "text");
    char stop[16], body[256];
    size_t len = strlen(text), at = len / 2;
    assert_true(len > 40);
    snprintf(stop, sizeof stop, "%.9s", text + at); /* nine bytes from the middle: more than one token */
    at = (size_t)(strstr(text, stop) - text);
    snprintf(body, sizeof body, "{\"prompt\":\"Once upon a time\",\"max_tokens\":40,\"temperature\":0,\"stop\":[\"never this\",\"%s\"]}", stop);
    json_t *j = ask(API_COMPLETIONS, 200, body);
    assert_string_equal(str(choice(j, 0), "finish_reason"), "stop");
    assert_string_equal(str(choice(j, 0), "stop_reason"), stop);
    assert_int_equal(strlen(str(choice(j, 0), "text")), at);
    assert_memory_equal(str(choice(j, 0), "text"), text, at);
    assert_true(usage(j, "completion_tokens") < 40);
    json_decref(j);
    snprintf(body, sizeof body, "{\"prompt\":\"Once upon a time\",\"max_tokens\":40,\"temperature\":0,\"stop\":\"%s\",\"include_stop_str_in_output\":true}", stop);
    j = ask(API_COMPLETIONS, 200, body);
    assert_int_equal(strlen(str(choice(j, 0), "text")), at + strlen(stop));
    json_decref(j);
    json_decref(whole);
}

static void sampling_fields_have_their_effect(void **state)
{
    (void)state;
    json_t *j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"The\",\"max_tokens\":3,\"temperature\":0,\"logit_bias\":{\"42\":100},\"ignore_eos\":true,\"return_token_ids\":true}");
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(json_integer_value(json_array_get(json_object_get(choice(j, 0), "token_ids"), i)), 42);
    json_decref(j);
    j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"The\",\"max_tokens\":8,\"allowed_token_ids\":[50,51],\"ignore_eos\":true,\"return_token_ids\":true}");
    for (size_t i = 0; i < 8; i++)
        assert_in_range(json_integer_value(json_array_get(json_object_get(choice(j, 0), "token_ids"), i)), 50, 51);
    json_decref(j);
    j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"The\",\"max_tokens\":8,\"logit_bias\":{\"42\":100},\"stop_token_ids\":[42],\"return_token_ids\":true}");
    assert_string_equal(str(choice(j, 0), "finish_reason"), "stop");
    assert_int_equal(json_integer_value(json_object_get(choice(j, 0), "stop_reason")), 42);
    assert_string_equal(str(choice(j, 0), "text"), "");
    json_decref(j);
    json_t *free_run = ask(API_COMPLETIONS, 200, "{\"prompt\":\"Once upon a time there was a\",\"max_tokens\":1,\"temperature\":0}");
    char body[256];
    const char *word = str(choice(free_run, 0), "text");
    snprintf(body, sizeof body, "{\"prompt\":\"Once upon a time there was a\",\"max_tokens\":1,\"temperature\":0,\"bad_words\":[\"%s\"]}", word);
    j = ask(API_COMPLETIONS, 200, body);
    assert_string_not_equal(str(choice(j, 0), "text"), word);
    json_decref(j);
    json_decref(free_run);
}

static void seeds_reproduce(void **state)
{
    (void)state;
    const char *body = "{\"prompt\":\"Once upon\",\"max_tokens\":12,\"temperature\":1.2,\"seed\":7,\"n\":2}";
    json_t *a = ask(API_COMPLETIONS, 200, body), *b = ask(API_COMPLETIONS, 200, body);
    assert_true(json_equal(json_object_get(a, "choices"), json_object_get(b, "choices")));
    assert_string_not_equal(str(choice(a, 0), "text"), str(choice(a, 1), "text"));
    json_decref(a);
    json_decref(b);
}

static void truncation_keeps_the_end(void **state)
{
    (void)state;
    json_t *j = ask(API_COMPLETIONS, 200, "{\"prompt\":[10,11,12,13,14],\"truncate_prompt_tokens\":2,\"max_tokens\":1,\"return_token_ids\":true}");
    assert_int_equal(usage(j, "prompt_tokens"), 2);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(choice(j, 0), "prompt_token_ids"), 0)), 13);
    json_decref(j);
}

static void best_of_and_beams(void **state)
{
    (void)state;
    json_t *j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"Once\",\"max_tokens\":6,\"n\":2,\"best_of\":4,\"seed\":1}");
    assert_int_equal(json_array_size(json_object_get(j, "choices")), 2);
    json_decref(j);
    j = ask(API_COMPLETIONS, 200, "{\"prompt\":\"Once\",\"max_tokens\":6,\"n\":3,\"use_beam_search\":true}");
    assert_int_equal(json_array_size(json_object_get(j, "choices")), 3);
    json_decref(j);
    int status;
    char *text = run(API_COMPLETIONS, "{\"prompt\":\"Once\",\"max_tokens\":6,\"n\":1,\"best_of\":3,\"stream\":true}", &status);
    char *end = strstr(text, "\n\n"); /* one event with the whole body, then [DONE] */
    assert_non_null(end);
    assert_string_equal(end + 2, "data: [DONE]\n\n");
    mem_free(text);
}

/* ---- streams ---- */

struct stream { char text[4096]; int n_chunks, n_roles, n_done; char finish[16]; long long completion_tokens; };

/* Parses every event; choice 0's text is collected. */
static void read_stream(char *text, bool chat, struct stream *s)
{
    struct err e;
    *s = (struct stream){.completion_tokens = -1};
    for (char *at = text, *next; *at; at = next) {
        next = strstr(at, "\n\n");
        assert_non_null(next);
        *next = 0;
        next += 2;
        assert_int_equal(strncmp(at, "data: ", 6), 0);
        at += 6;
        if (strcmp(at, "[DONE]") == 0) {
            s->n_done++;
            assert_int_equal(*next, 0);
            continue;
        }
        json_t *j = json_parse(at, strlen(at), &e), *c = choice(j, 0), *delta = json_object_get(c, "delta");
        assert_non_null(j);
        s->n_chunks++;
        s->n_roles += delta && json_object_get(delta, "role");
        const char *piece = chat ? str(delta, "content") : str(c, "text");
        if (c && json_integer_value(json_object_get(c, "index")) == 0) {
            strcat(s->text, piece ? piece : "");
            if (str(c, "finish_reason"))
                strcpy(s->finish, str(c, "finish_reason"));
        }
        if (!c && json_is_object(json_object_get(j, "usage")))
            s->completion_tokens = usage(j, "completion_tokens");
        json_decref(j);
    }
}

static void streams_equal_bodies(void **state)
{
    (void)state;
    static const struct { enum api_endpoint endpoint; const char *fields; } cases[] = {
        {API_COMPLETIONS, "\"prompt\":\"Once upon a time\",\"max_tokens\":30,\"temperature\":0"},
        {API_COMPLETIONS, "\"prompt\":\"Once upon a time\",\"max_tokens\":30,\"seed\":5,\"echo\":true,\"logprobs\":2"},
        {API_COMPLETIONS, "\"prompt\":\"Once upon a time\",\"max_tokens\":30,\"temperature\":0,\"stop\":\"girl\""},
        {API_CHAT, "\"messages\":[{\"role\":\"user\",\"content\":\"What is quire?\"}],\"seed\":1,\"max_tokens\":30"},
        {API_CHAT, "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"seed\":1,\"max_completion_tokens\":9,\"logprobs\":true,\"top_logprobs\":2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[512];
        int status;
        struct stream s;
        bool chat = cases[i].endpoint == API_CHAT;
        snprintf(body, sizeof body, "{%s}", cases[i].fields);
        json_t *whole = ask(cases[i].endpoint, 200, body);
        snprintf(body, sizeof body, "{%s,\"stream\":true,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}", cases[i].fields);
        char *text = run(cases[i].endpoint, body, &status);
        read_stream(text, chat, &s);
        assert_string_equal(s.text, chat ? str(json_object_get(choice(whole, 0), "message"), "content") : str(choice(whole, 0), "text"));
        assert_string_equal(s.finish, str(choice(whole, 0), "finish_reason"));
        assert_int_equal(s.completion_tokens, usage(whole, "completion_tokens"));
        assert_int_equal(s.n_roles, chat);
        assert_int_equal(s.n_done, 1);
        mem_free(text);
        json_decref(whole);
    }
}

/* ---- chat ---- */

static void chat_shape(void **state)
{
    (void)state;
    json_t *j = ask(API_CHAT, 200, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"What is quire?\"}]}],\"temperature\":0,"
                                   "\"logprobs\":true,\"top_logprobs\":2,\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
                                   "\"tool_choice\":\"none\",\"response_format\":{\"type\":\"text\"},\"max_tokens\":12}");
    json_t *c = choice(j, 0), *m = json_object_get(c, "message"), *list = json_object_get(json_object_get(c, "logprobs"), "content");
    assert_string_equal(str(j, "object"), "chat.completion");
    assert_int_equal(strncmp(str(j, "id"), "chatcmpl-", 9), 0);
    assert_string_equal(str(m, "role"), "assistant");
    assert_int_equal(json_array_size(list), usage(j, "completion_tokens"));
    json_t *first = json_array_get(list, 0);
    assert_int_equal(json_array_size(json_object_get(first, "top_logprobs")), 2);
    assert_int_equal(json_array_size(json_object_get(first, "bytes")), strlen(str(first, "token")));
    json_decref(j);
}

static void chat_requests_are_checked(void **state)
{
    (void)state;
#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
    assert_error(API_CHAT, 400, "messages", "required", "{}");
    assert_error(API_CHAT, 400, "messages", "empty", "{\"messages\":[]}");
    assert_error(API_CHAT, 400, "messages", "role", "{\"messages\":[{\"content\":\"x\"}]}");
    assert_error(API_CHAT, 400, "messages", "expected string or array", "{\"messages\":[{\"role\":\"user\",\"content\":5}]}");
    assert_error(API_CHAT, 400, "messages", "image_url", "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}");
    assert_error(API_CHAT, 400, "top_logprobs", "needs 'logprobs'", "{" USER ",\"top_logprobs\":3}");
    assert_error(API_CHAT, 400, "tool_choice", "needs 'tools'", "{" USER ",\"tool_choice\":\"required\"}");
    assert_error(API_CHAT, 400, "tool_choice", "none, auto", "{" USER ",\"tool_choice\":\"often\"}");
    assert_error(API_CHAT, 400, "tools", "tools[0]", "{" USER ",\"tools\":[{}]}");
    assert_error(API_CHAT, 400, "response_format", "json_schema", "{" USER ",\"response_format\":{\"type\":\"json_schema\"}}");
    assert_error(API_CHAT, 400, "continue_final_message", "both", "{" USER ",\"continue_final_message\":true,\"add_generation_prompt\":true}");
    assert_error(API_CHAT, 400, "chat_template", "", "{" USER ",\"chat_template\":\"{% if %}\"}");
    assert_error(API_CHAT, 400, "messages", "no such luck", "{" USER ",\"chat_template\":\"{{ raise_exception('no such luck') }}\"}");
#undef USER
}

static void chat_continues_a_message(void **state)
{
    (void)state;
    json_t *j = ask(API_CHAT, 200, "{\"messages\":[{\"role\":\"user\",\"content\":\"What is quire?\"},{\"role\":\"assistant\",\"content\":\"Quire is\"}],"
                                   "\"continue_final_message\":true,\"echo\":true,\"temperature\":0,\"max_tokens\":4}");
    assert_int_equal(strncmp(str(json_object_get(choice(j, 0), "message"), "content"), "Quire is", 8), 0);
    json_decref(j);
}

static void own_template_and_kwargs(void **state)
{
    (void)state;
    json_t *a = ask(API_CHAT, 200, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"chat_template\":\"{{ word }} {{ reasoning_effort }}\",\"chat_template_kwargs\":{\"word\":\"Once\"},"
                                   "\"reasoning_effort\":\"low\",\"max_tokens\":3,\"temperature\":0,\"return_token_ids\":true}");
    json_t *b = ask(API_COMPLETIONS, 200, "{\"prompt\":\"Once low\",\"max_tokens\":3,\"temperature\":0,\"return_token_ids\":true,\"add_special_tokens\":false}");
    assert_true(json_equal(json_object_get(a, "prompt_token_ids"), json_object_get(choice(b, 0), "prompt_token_ids")));
    json_decref(a);
    json_decref(b);
}

/* ---- the rest ---- */

static void tokenize_round_trip(void **state)
{
    (void)state;
    struct api_error e;
    struct err err;
    struct buf out;
    buf_init(&out, 0);
    const char *body = "{\"prompt\":\"The little dog\",\"return_token_strs\":true,\"add_special_tokens\":false}";
    assert_true(api_tokenize(api, body, strlen(body), &out, &e));
    json_t *j = json_parse(out.data, out.len, &err), *ids = json_object_get(j, "tokens");
    assert_int_equal(json_array_size(ids), json_integer_value(json_object_get(j, "count")));
    assert_int_equal(json_array_size(ids), json_array_size(json_object_get(j, "token_strs")));
    char back[512], *list = json_dumps(ids, 0);
    snprintf(back, sizeof back, "{\"tokens\":%s}", list);
    buf_clear(&out);
    assert_true(api_detokenize(api, back, strlen(back), &out, &e));
    assert_string_equal(out.data, "{\"prompt\":\"The little dog\"}");
    free(list);
    json_decref(j);
    buf_clear(&out);
    assert_false(api_detokenize(api, "{\"tokens\":[1,\"x\"]}", 18, &out, &e));
    assert_string_equal(e.param, "tokens");
    assert_false(api_tokenize(api, "{}", 2, &out, &e));
    body = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    assert_true(api_tokenize(api, body, strlen(body), &out, &e));
    buf_free(&out);
}

static void models_are_listed(void **state)
{
    (void)state;
    struct api_error e;
    struct err err;
    struct buf out;
    buf_init(&out, 0);
    assert_true(api_write_models(api, &out));
    json_t *j = json_parse(out.data, out.len, &err);
    assert_string_equal(str(json_array_get(json_object_get(j, "data"), 0), "id"), "quire-builtin");
    json_decref(j);
    assert_false(api_write_model(api, "other", &out, &e));
    assert_int_equal(e.status, 404);
    buf_free(&out);
}

/* Closing a job in the middle gives its pages back. */
static void closing_cancels(void **state)
{
    (void)state;
    struct engine_metrics m;
    struct api_error e;
    const char *body = "{\"prompt\":\"Once\",\"max_tokens\":900,\"ignore_eos\":true,\"n\":4}";
    for (int i = 0; i < 5; i++) {
        struct api_job *job;
        struct buf out;
        buf_init(&out, 0);
        struct api_job_opts o = {.notify = NULL};
        assert_true(api_job_open(&job, api, API_COMPLETIONS, body, strlen(body), &o, &e));
        api_job_pull(job, &out);
        api_job_close(&job);
        buf_free(&out);
    }
    for (int i = 0; i < 500; i++) {
        engine_metrics(eng, &m);
        if (engine_idle(eng) && m.blocks_held == 0)
            break;
        struct timespec t = {0, 10000000};
        nanosleep(&t, NULL);
    }
    assert_true(engine_idle(eng));
    engine_metrics(eng, &m);
    assert_int_equal(m.blocks_held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_status), cmocka_unit_test(error_bodies_are_json), cmocka_unit_test(wrong_types_name_the_field),
        cmocka_unit_test(prompts_are_checked), cmocka_unit_test(context_overflow_is_the_documented_400),
        cmocka_unit_test(unknown_fields_are_ignored), cmocka_unit_test(completion_shape), cmocka_unit_test(prompts_times_choices),
        cmocka_unit_test(text_and_ids_agree), cmocka_unit_test(echo_gives_the_prompt), cmocka_unit_test(prompt_logprobs_shape),
        cmocka_unit_test(logprobs_are_of_the_sampled_token), cmocka_unit_test(stop_strings_cross_tokens),
        cmocka_unit_test(sampling_fields_have_their_effect), cmocka_unit_test(seeds_reproduce), cmocka_unit_test(truncation_keeps_the_end),
        cmocka_unit_test(best_of_and_beams), cmocka_unit_test(streams_equal_bodies), cmocka_unit_test(chat_shape),
        cmocka_unit_test(chat_requests_are_checked), cmocka_unit_test(chat_continues_a_message), cmocka_unit_test(own_template_and_kwargs),
        cmocka_unit_test(tokenize_round_trip), cmocka_unit_test(models_are_listed), cmocka_unit_test(closing_cancels),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
