/* Fields of completions and chat completions, each by what it changes; over engines with the built-in model. */
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
#include "api_ask.h"

#define STORY "\"prompt\":\"Once upon a time\",\"temperature\":0"
#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"What is quire?\"}],\"temperature\":0"

static struct engine *eng, *by_priority;
static struct api *plain, *prioritized;

static bool open_one(struct engine **e_out, struct api **a_out, bool priority)
{
    struct engine_opts o;
    engine_opts_default(&o);
    o.max_num_seqs = 8;
    o.num_kv_blocks = 257;
    o.n_threads = 2;
    o.priority_scheduling = priority;
    return api_ask_open(e_out, a_out, &o, (struct api_opts){.use_generation_config = true, .prompt_tokens_details = true});
}

static int open_all(void **state)
{
    (void)state;
    return open_one(&eng, &plain, false) && open_one(&by_priority, &prioritized, true) ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    api_close(&plain);
    api_close(&prioritized);
    engine_close(&eng);
    engine_close(&by_priority);
    return 0;
}

/* ---- asking ---- */

static json_t *ask_of(const struct api *a, enum api_endpoint endpoint, int want, const char *fields)
{
    char body[2048];
    assert_true((size_t)snprintf(body, sizeof body, "{%s}", fields) < sizeof body);
    return api_ask(a, endpoint, want, body);
}

static json_t *ask(enum api_endpoint endpoint, const char *fields) { return ask_of(plain, endpoint, 200, fields); }

static json_t *at(json_t *j, const char *key) { return json_object_get(j, key); }
static json_t *nth(json_t *j, size_t i) { return json_array_get(j, i); }
static json_t *choice(json_t *j, size_t i) { return nth(at(j, "choices"), i); }
static const char *text_of(json_t *j, enum api_endpoint endpoint)
{
    return json_string_value(endpoint == API_CHAT ? at(at(choice(j, 0), "message"), "content") : at(choice(j, 0), "text"));
}
static long long number(json_t *j, const char *key) { return json_integer_value(at(j, key)); }

/* The events of a stream but [DONE], as an array. */
static json_t *ask_stream(enum api_endpoint endpoint, const char *fields)
{
    char body[2048];
    int status;
    struct err e;
    json_t *events = json_array();
    snprintf(body, sizeof body, "{%s,\"stream\":true}", fields);
    char *text = api_ask_text(plain, endpoint, body, &status), *p = text;
    assert_int_equal(status, 200);
    while (strncmp(p, "data: {", 7) == 0) {
        char *end = strstr(p, "\n\n");
        assert_non_null(end);
        json_t *one = json_parse(p + 6, (size_t)(end - p - 6), &e);
        assert_non_null(one);
        json_array_append_new(events, one);
        p = end + 2;
    }
    assert_string_equal(p, "data: [DONE]\n\n");
    mem_free(text);
    return events;
}

static void assert_refused(enum api_endpoint endpoint, const char *param, const char *fields)
{
    json_t *j = ask_of(plain, endpoint, 400, fields), *e = at(j, "error");
    const char *p = json_string_value(at(e, "param"));
    if (!p || strcmp(p, param) != 0 || !strstr(json_string_value(at(e, "message")), param))
        fail_msg("%s\n-> param %s, message %s", fields, p ? p : "null", json_string_value(at(e, "message")));
    json_decref(j);
}

/* Both requests have the same answer, or not. */
static void compare(enum api_endpoint endpoint, bool same, const char *a, const char *b)
{
    json_t *x = ask(endpoint, a), *y = ask(endpoint, b);
    if (json_equal(at(x, "choices"), at(y, "choices")) != same)
        fail_msg("%s\n%s\n-> %s", a, b, same ? "differ" : "are equal");
    json_decref(x);
    json_decref(y);
}

/* ---- what is refused and what is only noted ---- */

static void what_cannot_be_done_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const both[][2] = {
        {"logits_processors", "[\"x\"]"}, {"kv_transfer_params", "{\"a\":1}"}, {"ec_transfer_params", "{\"a\":1}"}, {"vllm_xargs", "{\"a\":1}"},
        {"logprob_token_ids", "[1]"}, {"repetition_detection", "{\"a\":1}"}, {"thinking_token_budget", "5"}, {"thinking_token_budget", "-2"},
        {"suffix", "\"x\""}, {"truncation_side", "\"middle\""}, {"priority", "3"}, {"stream_interval", "0"}, {"best_of", "0"},
        {"prompt_logprobs", "1,\"stream\":true"}, {"logprobs_mode", "\"x\""}, {"stream_options", "{}"},
    };
    static const char *const chat[][2] = {
        {"functions", "[{}]"}, {"function_call", "\"auto\""}, {"mm_processor_kwargs", "{\"a\":1}"}, {"media_io_kwargs", "{\"a\":1}"},
        {"audio", "{\"voice\":\"x\"}"}, {"web_search_options", "{\"a\":1}"}, {"modalities", "[\"text\",\"audio\"]"}, {"reasoning_effort", "\"huge\""},
        {"max_completion_tokens", "0"}, {"documents", "{}"}, {"chat_template_kwargs", "[]"}, {"include_reasoning", "1"}, {"parallel_tool_calls", "1"},
        {"top_logprobs", "-1"}, {"top_logprobs", "5000,\"logprobs\":true"},
    };
    char fields[256];
    for (size_t i = 0; i < sizeof both / sizeof both[0]; i++) {
        if (strcmp(both[i][0], "suffix") != 0) {
            snprintf(fields, sizeof fields, USER ",\"%s\":%s", both[i][0], both[i][1]);
            assert_refused(API_CHAT, both[i][0], fields);
        }
        snprintf(fields, sizeof fields, STORY ",\"%s\":%s", both[i][0], both[i][1]);
        assert_refused(API_COMPLETIONS, both[i][0], fields);
    }
    assert_refused(API_COMPLETIONS, "prompt_embeds", STORY ",\"prompt_embeds\":\"AAAA\"");
    for (size_t i = 0; i < sizeof chat / sizeof chat[0]; i++) {
        snprintf(fields, sizeof fields, USER ",\"%s\":%s", chat[i][0], chat[i][1]);
        assert_refused(API_CHAT, chat[i][0], fields);
    }
}

/* Every field there is, null or at its default: no change. */
static void nulls_and_defaults_change_nothing(void **state)
{
    (void)state;
    static const char common[] =
        ",\"max_tokens\":6,\"n\":1,\"best_of\":null,\"stop\":null,\"seed\":-1,\"top_p\":1,\"top_k\":-1,\"min_p\":0,\"typical_p\":1,\"repetition_penalty\":1,"
        "\"frequency_penalty\":0,\"presence_penalty\":0,\"length_penalty\":1,\"use_beam_search\":false,\"logit_bias\":{},\"stop_token_ids\":[],"
        "\"allowed_token_ids\":null,\"bad_words\":[],\"include_stop_str_in_output\":false,\"ignore_eos\":false,\"min_tokens\":0,"
        "\"skip_special_tokens\":true,\"spaces_between_special_tokens\":true,\"truncate_prompt_tokens\":null,\"truncation_side\":null,"
        "\"prompt_logprobs\":null,\"priority\":0,\"return_token_ids\":false,\"return_tokens_as_token_ids\":null,\"response_format\":{\"type\":\"text\"},"
        "\"guided_json\":null,\"guided_decoding_backend\":\"any\",\"logits_processors\":null,\"kv_transfer_params\":null,\"ec_transfer_params\":null,"
        "\"vllm_xargs\":{},\"logprob_token_ids\":[],\"repetition_detection\":null,\"thinking_token_budget\":-1,\"user\":\"u\",\"metadata\":{\"a\":\"b\"},"
        "\"store\":false,\"service_tier\":\"auto\",\"session_id\":\"s\",\"prompt_cache_key\":\"k\",\"safety_identifier\":\"i\",\"stream\":false,"
        "\"stream_options\":null,\"stream_interval\":1,\"cache_salt\":null,\"request_id\":null,\"model\":null,\"not_a_field\":[{}]";
    char fields[2048];
    snprintf(fields, sizeof fields, STORY "%s,\"suffix\":null,\"echo\":false,\"logprobs\":null,\"prompt_embeds\":null,\"add_special_tokens\":true", common);
    compare(API_COMPLETIONS, true, STORY ",\"max_tokens\":6", fields);
    snprintf(fields, sizeof fields, USER "%s,\"logprobs\":false,\"top_logprobs\":null,\"tools\":[],\"tool_choice\":null,\"parallel_tool_calls\":true,"
             "\"documents\":null,\"chat_template\":null,\"chat_template_kwargs\":null,\"add_generation_prompt\":true,\"continue_final_message\":false,"
             "\"modalities\":[\"text\"],\"audio\":null,\"functions\":[],\"prediction\":null,\"verbosity\":\"low\",\"web_search_options\":null,"
             "\"include_reasoning\":true,\"max_completion_tokens\":null", common);
    compare(API_CHAT, true, USER ",\"max_tokens\":6", fields);
}

/* ---- the prompt ---- */

static void truncation_has_a_side(void **state)
{
    (void)state;
    static const struct { const char *fields; int n, first; } rows[] = {
        {"\"truncate_prompt_tokens\":2", 2, 13}, {"\"truncate_prompt_tokens\":2,\"truncation_side\":\"left\"", 2, 13},
        {"\"truncate_prompt_tokens\":2,\"truncation_side\":\"right\"", 2, 10}, {"\"truncate_prompt_tokens\":5", 5, 10},
        {"\"truncate_prompt_tokens\":-1", 5, 10}, {"\"truncation_side\":\"right\"", 5, 10},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char fields[256];
        snprintf(fields, sizeof fields, "\"prompt\":[10,11,12,13,14],\"max_tokens\":1,\"return_token_ids\":true,%s", rows[i].fields);
        json_t *j = ask(API_COMPLETIONS, fields), *ids = at(choice(j, 0), "prompt_token_ids");
        assert_int_equal(json_array_size(ids), rows[i].n);
        assert_int_equal(json_integer_value(nth(ids, 0)), rows[i].first);
        json_decref(j);
    }
    /* An echo shows what the model saw. */
    json_t *j = ask(API_COMPLETIONS, STORY ",\"truncate_prompt_tokens\":1,\"max_tokens\":1,\"echo\":true");
    assert_int_equal(strncmp(text_of(j, API_COMPLETIONS), " time", 5), 0);
    json_decref(j);
}

static void special_tokens_are_asked_for(void **state)
{
    (void)state;
    json_t *with = ask(API_COMPLETIONS, STORY ",\"max_tokens\":1"), *without = ask(API_COMPLETIONS, STORY ",\"max_tokens\":1,\"add_special_tokens\":false");
    assert_int_equal(number(at(with, "usage"), "prompt_tokens"), number(at(without, "usage"), "prompt_tokens") + 1);
    json_decref(with);
    json_decref(without);
    /* Chat prompts are as their template writes them. */
    with = ask(API_CHAT, USER ",\"max_tokens\":1,\"add_special_tokens\":true"), without = ask(API_CHAT, USER ",\"max_tokens\":1");
    assert_int_equal(number(at(with, "usage"), "prompt_tokens"), number(at(without, "usage"), "prompt_tokens") + 1);
    json_decref(with);
    json_decref(without);
}

static void templates_get_all_they_are_given(void **state)
{
    (void)state;
    json_t *a = ask(API_CHAT, USER ",\"max_tokens\":1,\"echo\":false,\"return_token_ids\":true,\"documents\":[{\"title\":\"dog\"}],"
                              "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"none\",\"reasoning_effort\":\"max\","
                              "\"chat_template_kwargs\":{\"x\":7},\"add_generation_prompt\":false,"
                              "\"chat_template\":\"{{ documents[0].title }} {{ x }} {{ reasoning_effort }} {{ add_generation_prompt }} {{ tools }}\"");
    json_t *b = ask(API_COMPLETIONS, "\"prompt\":\"dog 7 max False None\",\"max_tokens\":1,\"return_token_ids\":true,\"add_special_tokens\":false");
    assert_true(json_equal(at(a, "prompt_token_ids"), at(choice(b, 0), "prompt_token_ids")));
    json_decref(a);
    json_decref(b);
}

static void salts_keep_caches_apart(void **state)
{
    (void)state;
    char fields[1024] = "\"max_tokens\":1,\"prompt\":\"";
    for (int i = 0; i < 20; i++)
        strcat(fields, "The fox and the owl. ");
    size_t n = strlen(fields);
    static const struct { const char *salt; bool cached; } rows[] = {{"", false}, {"", true}, {",\"cache_salt\":\"a\"", false},
        {",\"cache_salt\":\"a\"", true}, {",\"cache_salt\":\"b\"", false}, {"", true}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(fields + n, sizeof fields - n, "\"%s", rows[i].salt);
        json_t *j = ask(API_COMPLETIONS, fields);
        assert_int_equal(number(at(at(j, "usage"), "prompt_tokens_details"), "cached_tokens") > 0, rows[i].cached);
        json_decref(j);
    }
}

/* ---- sampling and stopping ---- */

static void min_tokens_and_ignore_eos(void **state)
{
    (void)state;
    json_t *j = ask(API_CHAT, USER);
    long long n = number(at(j, "usage"), "completion_tokens");
    assert_string_equal(json_string_value(at(choice(j, 0), "finish_reason")), "stop");
    json_decref(j);
    char fields[256];
    snprintf(fields, sizeof fields, USER ",\"min_tokens\":%lld,\"max_tokens\":%lld", n + 4, n + 6);
    j = ask(API_CHAT, fields);
    assert_true(number(at(j, "usage"), "completion_tokens") >= n + 4);
    json_decref(j);
    snprintf(fields, sizeof fields, USER ",\"ignore_eos\":true,\"max_completion_tokens\":%lld,\"max_tokens\":2,\"skip_special_tokens\":false", n + 6);
    j = ask(API_CHAT, fields); /* max_completion_tokens comes before max_tokens */
    assert_int_equal(number(at(j, "usage"), "completion_tokens"), n + 6);
    json_t *hidden;
    snprintf(fields, sizeof fields, USER ",\"ignore_eos\":true,\"max_tokens\":%lld", n + 6);
    hidden = ask(API_CHAT, fields);
    assert_true(strlen(text_of(j, API_CHAT)) > strlen(text_of(hidden, API_CHAT))); /* the EOS in the middle */
    json_decref(hidden);
    json_decref(j);
}

static void bias_is_bounded(void **state)
{
    (void)state;
    compare(API_COMPLETIONS, true, STORY ",\"max_tokens\":3,\"logit_bias\":{\"42\":100}", STORY ",\"max_tokens\":3,\"logit_bias\":{\"42\":1000000}");
    compare(API_COMPLETIONS, true, STORY ",\"max_tokens\":3,\"logprobs\":3,\"logprobs_mode\":\"processed\",\"logit_bias\":{\"42\":-100}",
            STORY ",\"max_tokens\":3,\"logprobs\":3,\"logprobs_mode\":\"processed\",\"logit_bias\":{\"42\":-1e9}");
    compare(API_COMPLETIONS, false, STORY ",\"max_tokens\":3", STORY ",\"max_tokens\":3,\"logit_bias\":{\"42\":100}");
}

static void best_of_is_for_chat_too(void **state)
{
    (void)state;
    json_t *j = ask(API_CHAT, USER ",\"temperature\":2,\"seed\":1,\"max_tokens\":8,\"best_of\":4,\"n\":2");
    assert_int_equal(json_array_size(at(j, "choices")), 2);
    json_decref(j);
    compare(API_CHAT, false, USER ",\"temperature\":2,\"seed\":3,\"max_tokens\":8", USER ",\"temperature\":2,\"seed\":3,\"max_tokens\":8,\"best_of\":8");
    json_t *events = ask_stream(API_CHAT, USER ",\"temperature\":2,\"seed\":3,\"max_tokens\":8,\"best_of\":8");
    json_t *whole = ask(API_CHAT, USER ",\"temperature\":2,\"seed\":3,\"max_tokens\":8,\"best_of\":8");
    char text[256] = "";
    for (size_t i = 0; i < json_array_size(events); i++) {
        const char *piece = json_string_value(at(at(choice(nth(events, i), 0), "delta"), "content"));
        strcat(text, piece ? piece : "");
    }
    assert_string_equal(text, text_of(whole, API_CHAT));
    json_decref(whole);
    json_decref(events);
}

static void priority_needs_its_policy(void **state)
{
    (void)state;
    json_decref(ask_of(prioritized, API_CHAT, 200, USER ",\"max_tokens\":1,\"priority\":-7"));
    json_decref(ask_of(prioritized, API_COMPLETIONS, 200, STORY ",\"max_tokens\":1,\"priority\":7"));
}

/* ---- shapes ---- */

static void ids_instead_of_texts(void **state)
{
    (void)state;
    json_t *j = ask(API_CHAT, USER ",\"max_tokens\":3,\"logprobs\":true,\"top_logprobs\":2,\"prompt_logprobs\":1,\"return_tokens_as_token_ids\":true,\"return_token_ids\":true");
    json_t *content = at(at(choice(j, 0), "logprobs"), "content"), *ids = at(choice(j, 0), "token_ids");
    assert_int_equal(json_array_size(content), 3);
    for (size_t i = 0; i < 3; i++) {
        char want[32];
        snprintf(want, sizeof want, "token_id:%lld", (long long)json_integer_value(nth(ids, i)));
        assert_string_equal(json_string_value(at(nth(content, i), "token")), want);
        assert_string_equal(json_string_value(at(nth(at(nth(content, i), "top_logprobs"), 0), "token")), want); /* greedy */
        assert_int_equal(json_array_size(at(nth(content, i), "top_logprobs")), 2);
    }
    assert_int_equal(json_array_size(at(j, "prompt_logprobs")), json_array_size(at(j, "prompt_token_ids")));
    assert_true(json_is_null(nth(at(j, "prompt_logprobs"), 0)));
    static const char *const nulls[] = {"reasoning_content", "reasoning", "refusal", "annotations", "audio", "function_call"};
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++)
        assert_true(json_is_null(at(at(choice(j, 0), "message"), nulls[i])));
    json_decref(j);
}

static void request_ids_are_kept(void **state)
{
    (void)state;
    json_t *j = ask(API_CHAT, USER ",\"max_tokens\":1,\"request_id\":\"mine\"");
    assert_string_equal(json_string_value(at(j, "id")), "chatcmpl-mine");
    json_decref(j);
    j = ask(API_COMPLETIONS, STORY ",\"max_tokens\":1,\"request_id\":\"mine\"");
    assert_string_equal(json_string_value(at(j, "id")), "cmpl-mine");
    json_decref(j);
}

static void usage_in_streams(void **state)
{
    (void)state;
    static const struct { const char *options; bool each, last; } rows[] = {
        {"", false, false}, {",\"stream_options\":{}", false, true}, {",\"stream_options\":{\"include_usage\":true}", false, true},
        {",\"stream_options\":{\"continuous_usage_stats\":true}", true, true}, {",\"stream_options\":{\"include_usage\":false}", false, false},
        {",\"stream_options\":{\"include_usage\":false,\"continuous_usage_stats\":true}", false, false},
    };
    for (int chat = 0; chat < 2; chat++)
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            char fields[512];
            snprintf(fields, sizeof fields, "%s,\"max_tokens\":5%s", chat ? USER : STORY, rows[i].options);
            json_t *events = ask_stream(chat ? API_CHAT : API_COMPLETIONS, fields);
            size_t n = json_array_size(events), n_chunks = n - rows[i].last;
            long long before = 0;
            for (size_t k = 0; k < n_chunks; k++) {
                json_t *usage = at(nth(events, k), "usage");
                assert_int_equal(json_array_size(at(nth(events, k), "choices")), 1);
                assert_int_equal(json_is_object(usage), rows[i].each);
                assert_true(rows[i].each ? number(usage, "completion_tokens") >= before : !rows[i].last || json_is_null(usage));
                before = number(usage, "completion_tokens");
            }
            json_t *last = nth(events, n - 1);
            assert_int_equal(json_array_size(at(last, "choices")) == 0, rows[i].last);
            if (rows[i].last)
                assert_int_equal(number(at(last, "usage"), "completion_tokens"), 5);
            json_decref(events);
        }
}

/* So many tokens an event, the first at once; the text is the same. */
static void events_hold_as_many_tokens_as_asked(void **state)
{
    (void)state;
    json_t *whole = ask(API_COMPLETIONS, STORY ",\"max_tokens\":21");
    static const int intervals[] = {1, 2, 5, 30};
    for (size_t r = 0; r < sizeof intervals / sizeof intervals[0]; r++) {
        int interval = intervals[r];
        char fields[256], text[512] = "";
        snprintf(fields, sizeof fields, STORY ",\"max_tokens\":21,\"return_token_ids\":true,\"stream_interval\":%d", interval);
        json_t *events = ask_stream(API_COMPLETIONS, fields);
        size_t n = json_array_size(events), n_ids = 0;
        for (size_t i = 0; i < n; i++) {
            json_t *c = choice(nth(events, i), 0);
            size_t ids = json_array_size(at(c, "token_ids"));
            n_ids += ids;
            strcat(text, json_string_value(at(c, "text")));
            if (i > 0 && i + 1 < n)
                assert_int_equal(ids, interval);
        }
        assert_int_equal(json_array_size(at(choice(nth(events, 0), 0), "token_ids")), 1);
        assert_int_equal(n_ids, 21);
        assert_string_equal(text, text_of(whole, API_COMPLETIONS));
        json_decref(events);
    }
    json_decref(whole);
}

static void chat_echo_comes_first_in_streams(void **state)
{
    (void)state;
    static const char fields[] = "\"messages\":[{\"role\":\"user\",\"content\":\"What is quire?\"},{\"role\":\"assistant\",\"content\":\"Quire is\"}],"
                                 "\"continue_final_message\":true,\"echo\":true,\"temperature\":0,\"max_tokens\":4,\"n\":2";
    json_t *events = ask_stream(API_CHAT, fields);
    int n_first = 0;
    for (size_t i = 0; i < json_array_size(events); i++) {
        json_t *delta = at(choice(nth(events, i), 0), "delta");
        if (!at(delta, "role"))
            continue;
        assert_string_equal(json_string_value(at(delta, "content")), "Quire is");
        n_first++;
    }
    assert_int_equal(n_first, 2);
    json_decref(events);
}

/* What vLLM takes in a content list: strings, and parts of text by several names. */
static void content_lists_hold_texts_of_many_names(void **state)
{
    (void)state;
    static const char *const same[] = {
        "[{\"type\":\"text\",\"text\":\"What is\"},{\"type\":\"text\",\"text\":\"quire?\"}]", "[\"What is\",\"quire?\"]",
        "[{\"type\":\"input_text\",\"text\":\"What is\"},{\"type\":\"output_text\",\"text\":\"quire?\"}]",
        "[{\"type\":\"refusal\",\"refusal\":\"What is\"},{\"type\":\"thinking\",\"thinking\":\"quire?\"}]",
    };
    static const char *const bad[] = {
        "[7]", "[null]", "[{}]", "[{\"text\":\"x\"}]", "[{\"type\":\"text\"}]", "[{\"type\":\"refusal\",\"text\":\"x\"}]", "[{\"type\":\"text\",\"text\":7}]",
        "[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]", "[[\"x\"]]",
    };
    json_t *ids = NULL;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char fields[512];
        snprintf(fields, sizeof fields, "\"messages\":[{\"role\":\"user\",\"content\":%s}],\"max_tokens\":1,\"return_token_ids\":true", same[i]);
        json_t *j = ask(API_CHAT, fields);
        if (!ids)
            ids = json_deep_copy(at(j, "prompt_token_ids"));
        assert_true(json_array_size(ids) > 4 && json_equal(ids, at(j, "prompt_token_ids")));
        json_decref(j);
    }
    json_decref(ids);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char fields[512];
        snprintf(fields, sizeof fields, "\"messages\":[{\"role\":\"user\",\"content\":%s}],\"max_tokens\":1", bad[i]);
        assert_refused(API_CHAT, "messages", fields);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_done_is_refused_by_name), cmocka_unit_test(nulls_and_defaults_change_nothing),
        cmocka_unit_test(truncation_has_a_side), cmocka_unit_test(special_tokens_are_asked_for), cmocka_unit_test(templates_get_all_they_are_given),
        cmocka_unit_test(salts_keep_caches_apart), cmocka_unit_test(min_tokens_and_ignore_eos), cmocka_unit_test(bias_is_bounded),
        cmocka_unit_test(best_of_is_for_chat_too), cmocka_unit_test(priority_needs_its_policy), cmocka_unit_test(ids_instead_of_texts),
        cmocka_unit_test(request_ids_are_kept), cmocka_unit_test(usage_in_streams), cmocka_unit_test(events_hold_as_many_tokens_as_asked),
        cmocka_unit_test(chat_echo_comes_first_in_streams), cmocka_unit_test(content_lists_hold_texts_of_many_names),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
