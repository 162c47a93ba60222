/* From config.json to a description: keys, defaults, bounds, and messages. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/json.h"
#include "base/mem.h"
#include "model/arch_int.h"

static struct arch arch;

/* Single quotes for double ones, to keep the tests readable. */
static bool from(const char *text, struct err *e)
{
    char *s = mem_try_strdup(text);
    for (char *p = s; *p; p++)
        if (*p == '\'')
            *p = '"';
    json_t *j = json_parse(s, strlen(s), e);
    if (!j)
        fail_msg("%s: %s", s, e->msg);
    bool ok = arch_from_config(&arch, j, e);
    json_decref(j);
    mem_free(s);
    return ok;
}

static void good(const char *text)
{
    struct err e = { 0 };
    if (!from(text, &e))
        fail_msg("%s: %s", text, e.msg);
}

static void bad(const char *text, const char *part)
{
    struct err e = { 0 };
    if (from(text, &e))
        fail_msg("accepted: %s", text);
    if (!strstr(e.msg, part))
        fail_msg("%s: message \"%s\" lacks \"%s\"", text, e.msg, part);
}

#define SIZES "'vocab_size':100,'hidden_size':64,'intermediate_size':96,'num_hidden_layers':3,'num_attention_heads':4,'num_key_value_heads':2"
#define LLAMA "'architectures':['LlamaForCausalLM']," SIZES

static void test_llama(void **state)
{
    (void)state;
    good("{" LLAMA "}");
    assert_int_equal(arch.head_dim, 16);
    assert_int_equal(arch.max_len, 2048);
    assert_int_equal(arch.rope[0].dim, 16);
    assert_true(arch.rope[0].theta == 10000.0 && arch.norm_eps == 1e-6f && arch.attn_scale == 0.25f);
    assert_false(arch.tied_head);
    assert_int_equal(arch.bos_id, -1);
    good("{" LLAMA ",'head_dim':32,'tie_word_embeddings':true,'attention_bias':true,'rope_theta':5e5,'eos_token_id':[5,6],'bos_token_id':1}");
    assert_int_equal(arch.head_dim, 32);
    assert_true(arch.tied_head && arch.linear[ARCH_LIN_QKV].bias && arch.linear[ARCH_LIN_ATTN_OUT].bias);
    assert_int_equal(arch.n_eos_ids, 2);
    assert_int_equal(arch.eos_ids[1], 6);
    good("{'model_type':'llama'," SIZES ",'num_key_value_heads':null}");
    assert_int_equal(arch.n_kv_heads, 4);
    good("{" LLAMA ",'hidden_size':64.0}");
}

static void test_bounds(void **state)
{
    (void)state;
    bad("[]", "must be an object");
    bad("{'architectures':['FooForCausalLM']}", "Llama, Mistral, Qwen2");
    bad("{'architectures':['FooForCausalLM'],'model_type':'llama'}", "FooForCausalLM");
    bad("{'architectures':'LlamaForCausalLM'}", "must be a list");
    bad("{}", "not supported");
    bad("{'architectures':['LlamaForCausalLM']}", "'hidden_size' is missing");
    bad("{" LLAMA ",'hidden_size':0}", "'hidden_size'");
    bad("{" LLAMA ",'hidden_size':-64}", "'hidden_size'");
    bad("{" LLAMA ",'hidden_size':'64'}", "must be an integer");
    bad("{" LLAMA ",'hidden_size':64.5}", "must be an integer");
    bad("{" LLAMA ",'hidden_size':1e300}", "must be an integer");
    bad("{" LLAMA ",'hidden_size':66}", "multiple");
    bad("{" LLAMA ",'num_key_value_heads':3}", "multiple");
    bad("{" LLAMA ",'vocab_size':1048577}", "'vocab_size'");
    bad("{" LLAMA ",'vocab_size':9223372036854775807}", "'vocab_size'");
    bad("{" LLAMA ",'num_hidden_layers':513}", "'num_hidden_layers'");
    bad("{" LLAMA ",'head_dim':513}", "'head_dim'");
    bad("{" LLAMA ",'head_dim':15}", "must be even");
    bad("{" LLAMA ",'intermediate_size':1e10}", "'intermediate_size'");
    bad("{" LLAMA ",'rms_norm_eps':-1}", "'rms_norm_eps'");
    bad("{" LLAMA ",'rope_theta':0}", "'rope_theta'");
    bad("{" LLAMA ",'hidden_act':'mish'}", "silu");
    bad("{" LLAMA ",'tie_word_embeddings':1}", "true or false");
}

static void test_rope(void **state)
{
    (void)state;
    good("{" LLAMA ",'rope_scaling':{'type':'linear','factor':4.0}}");
    assert_int_equal(arch.rope[0].scaling, ARCH_ROPE_LINEAR);
    assert_int_equal(arch.max_len, 8192);
    good("{" LLAMA ",'rope_scaling':{'rope_type':'llama3','factor':8,'low_freq_factor':1,'high_freq_factor':4,'original_max_position_embeddings':32}}");
    assert_int_equal(arch.rope[0].scaling, ARCH_ROPE_LLAMA3);
    assert_int_equal(arch.rope[0].original_len, 32);
    assert_int_equal(arch.max_len, 2048);
    good("{" LLAMA ",'rope_theta':1,'rope_parameters':{'rope_type':'default','rope_theta':777.0},'rope_scaling':{'type':'linear','factor':2}}");
    assert_int_equal(arch.rope[0].scaling, ARCH_ROPE_PLAIN);
    assert_true(arch.rope[0].theta == 777.0);
    good("{" LLAMA ",'max_position_embeddings':1000,'rope_scaling':{'rope_type':'yarn','factor':4.0,'original_max_position_embeddings':1000}}");
    assert_int_equal(arch.max_len, 4000);
    assert_true(fabs(arch.rope[0].attn_factor - (0.1 * log(4.0) + 1.0)) < 1e-12);
    good("{" LLAMA ",'rope_scaling':{'rope_type':'yarn','factor':40,'mscale':0.707,'mscale_all_dim':0.707}}");
    assert_true(fabs(arch.rope[0].attn_factor - 1.0) < 1e-12);
    good("{" LLAMA ",'rope_scaling':{'type':'dynamic','factor':2.0}}");
    assert_int_equal(arch.max_len, 4096);
    good("{" LLAMA ",'rope_scaling':{'rope_type':'default'}}");
    good("{" LLAMA ",'rope_scaling':null}");
    bad("{" LLAMA ",'rope_scaling':{'type':'mrope'}}", "yarn");
    bad("{" LLAMA ",'rope_scaling':{'type':'linear'}}", "factor");
    bad("{" LLAMA ",'rope_scaling':{'type':'linear','factor':0}}", "factor");
    bad("{" LLAMA ",'rope_scaling':3}", "object");
    bad("{" LLAMA ",'rope_scaling':{'type':'longrope','factor':2}}", "short_factor");
    bad("{" LLAMA ",'rope_scaling':{'type':'longrope','factor':2,'short_factor':[1,1,1,1,1,1,1,0],'long_factor':[]}}", "short_factor[7]");
}

static void test_windows(void **state)
{
    (void)state;
#define MISTRAL "'architectures':['MistralForCausalLM']," SIZES
    good("{" MISTRAL ",'sliding_window':16}");
    assert_int_equal(arch.layer_window[2], 16);
    good("{" MISTRAL ",'sliding_window':null}");
    assert_int_equal(arch.layer_window[0], 0);
    good("{" MISTRAL "}");
    assert_int_equal(arch.layer_window[0], 4096);
    bad("{" MISTRAL ",'sliding_window':-5}", "sliding_window");
#define QWEN2 "'architectures':['Qwen2ForCausalLM']," SIZES
    good("{" QWEN2 ",'sliding_window':7,'use_sliding_window':false}");
    assert_int_equal(arch.layer_window[2], 0);
    assert_true(arch.linear[ARCH_LIN_QKV].bias && !arch.linear[ARCH_LIN_ATTN_OUT].bias);
    good("{" QWEN2 ",'sliding_window':7,'use_sliding_window':true,'max_window_layers':1}");
    assert_int_equal(arch.layer_window[0], 0);
    assert_int_equal(arch.layer_window[1], 7);
    good("{" QWEN2 ",'sliding_window':7,'use_sliding_window':true,'layer_types':['sliding_attention','full_attention','sliding_attention']}");
    assert_int_equal(arch.layer_window[0], 7);
    assert_int_equal(arch.layer_window[1], 0);
    bad("{" QWEN2 ",'layer_types':['full_attention']}", "layer_types");
    bad("{" QWEN2 ",'layer_types':['full_attention','full_attention','linear_attention']}", "linear_attention");
    bad("{" QWEN2 ",'layer_types':['full_attention','full_attention','sliding_attention']}", "sliding_window");
}

static void test_alibi(void **state)
{
    (void)state;
    struct arch a = { .n_heads = 8, .alibi_max_bias = 8, .alibi_scale = 1 };
    float s[12];
    arch_alibi_slopes(&a, s);
    assert_true(s[0] == 0.5f && s[7] == 1.0f / 256);
    a.n_heads = 12;
    arch_alibi_slopes(&a, s);
    assert_true(s[7] == 1.0f / 256 && s[8] == (float)pow(2, -0.5) && s[11] == (float)pow(2, -3.5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_alibi),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
