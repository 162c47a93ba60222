/* What a config says about quantized weights. */
#include <string.h>
#include "base/mem.h"
#include "model/quant_int.h"

static bool unsupported(struct err *e, const char *what, const char *found, const char *supported)
{
    return err_set(e, ERR_UNSUPPORTED, "quantization_config: %s \"%.40s\" is not supported; supported are %s", what, found, supported);
}

static bool is_one_of(const char *s, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(s, *list) == 0)
            return true;
    return false;
}

static bool read_gptq(struct quant_config *q, const json_t *j, struct err *e)
{
    static const char *const formats[] = { "gptq", "gptq_v2", NULL };
    const char *format;
    q->method = QUANT_GPTQ;
    if (!json_get_str(j, "checkpoint_format", "gptq", &format, e))
        return false;
    if (!is_one_of(format, formats))
        return unsupported(e, "checkpoint_format", format, "gptq and gptq_v2");
    q->zeros_exact = strcmp(format, "gptq_v2") == 0;
    return json_get_i64(j, "group_size", 0, &q->group_size, e);
}

static bool read_awq(struct quant_config *q, const json_t *j, struct err *e)
{
    const char *version;
    int64_t bits;
    q->method = QUANT_AWQ;
    if (!json_get_str(j, "version", "gemm", &version, e) || !json_get_i64(j, json_object_get(j, "bits") ? "bits" : "w_bit", 4, &bits, e))
        return false;
    if (strcmp(version, "gemm") != 0 && strcmp(version, "GEMM") != 0 && strcmp(version, "exllama") != 0)
        return unsupported(e, "version", version, "gemm");
    if (bits != 4)
        return err_set(e, ERR_UNSUPPORTED, "quantization_config: AWQ with %lld bits is not supported; supported is 4", (long long)bits);
    return json_get_i64(j, json_object_get(j, "group_size") ? "group_size" : "q_group_size", 0, &q->group_size, e);
}

static bool read_pair(const json_t *j, const char *key, struct quant_config *q, struct err *e)
{
    const json_t *list = json_object_get(j, key);
    if (!list || json_is_null(list))
        return true;
    const json_t *a = json_array_get(list, 0), *b = json_array_get(list, 1);
    if (json_array_size(list) != 2 || !json_is_integer(a) || !json_is_integer(b) || json_integer_value(a) < 1 || json_integer_value(b) < 1 ||
        json_integer_value(a) > 1 << 20 || json_integer_value(b) > 1 << 20)
        return err_set(e, ERR_FORMAT, "quantization_config: '%s' must be two sizes", key);
    q->block_rows = (int64_t)json_integer_value(a);
    q->block_cols = (int64_t)json_integer_value(b);
    return true;
}

static bool read_group(struct quant_config *q, const json_t *group, struct err *e)
{
    static const char *const strategies[] = { "tensor", "channel", "group", "block", NULL };
    const json_t *w, *inputs;
    const char *strategy, *type;
    int64_t bits, size;
    if (!json_get_obj(group, "weights", &w, e) || !json_get_obj(group, "input_activations", &inputs, e))
        return false;
    if (inputs) {
        if (!json_get_i64(inputs, "num_bits", 8, &bits, e) || !json_get_str(inputs, "type", "int", &type, e))
            return false;
        q->int8_inputs |= bits == 8 && strcmp(type, "int") == 0;
    }
    if (!w)
        return true;
    if (!json_get_str(w, "strategy", "tensor", &strategy, e) || !json_get_i64(w, "num_bits", 8, &bits, e) || !json_get_i64(w, "group_size", 0, &size, e))
        return false;
    if (!is_one_of(strategy, strategies))
        return unsupported(e, "strategy", strategy, "tensor, channel, group and block");
    if (bits < 2 || bits > 8)
        return err_set(e, ERR_UNSUPPORTED, "quantization_config: weights of %lld bits are not supported; supported are 2 to 8", (long long)bits);
    if (q->n_bits < (int)(sizeof q->bits / sizeof *q->bits))
        q->bits[q->n_bits++] = (int)bits;
    if (size > 0)
        q->group_size = q->group_size && q->group_size != size ? -2 : size;   /* several: shapes must tell */
    return strcmp(strategy, "block") != 0 || read_pair(w, "block_structure", q, e);
}

static bool read_compressed(struct quant_config *q, const json_t *j, struct err *e)
{
    static const char *const formats[] = { "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense", NULL };
    const json_t *groups, *sparsity;
    const char *format, *sparse, *name;
    json_t *group;
    q->method = QUANT_COMPRESSED;
    if (!json_get_str(j, "format", "dense", &format, e) || !json_get_obj(j, "config_groups", &groups, e) || !json_get_obj(j, "sparsity_config", &sparsity, e) ||
        !json_get_str(sparsity, "format", "dense", &sparse, e))
        return false;
    if (!is_one_of(format, formats))
        return unsupported(e, "format", format, "pack-quantized, int-quantized and float-quantized");
    if (strcmp(sparse, "dense") != 0)
        return unsupported(e, "sparsity_config.format", sparse, "dense");
    json_object_foreach((json_t *)groups, name, group) {
        if (!json_get_str(group, "format", "dense", &format, e) || !read_group(q, group, e))
            return false;
        if (!is_one_of(format, formats))
            return unsupported(e, "format", format, "pack-quantized, int-quantized and float-quantized");
    }
    return true;
}

static bool read_method(struct quant_config *q, const json_t *j, const char *method, struct err *e)
{
    if (strcmp(method, "gptq") == 0)
        return read_gptq(q, j, e);
    if (strcmp(method, "awq") == 0)
        return read_awq(q, j, e);
    if (strcmp(method, "compressed-tensors") == 0)
        return read_compressed(q, j, e);
    if (strcmp(method, "fp8") == 0 || strcmp(method, "fbgemm_fp8") == 0) {
        q->method = QUANT_FP8;
        return read_pair(j, "weight_block_size", q, e);
    }
    if (strcmp(method, "modelopt") == 0) {
        const char *algo;
        q->method = QUANT_FP8;
        if (!json_get_str(j, "quant_algo", "(none given)", &algo, e))
            return false;
        return strcmp(algo, "FP8") == 0 || unsupported(e, "quant_algo", algo, "FP8");
    }
    if (strcmp(method, "bitsandbytes") == 0) {
        q->method = QUANT_BNB;
        return true;
    }
    return unsupported(e, "quant_method", method, "gptq, awq, compressed-tensors, fp8, fbgemm_fp8, modelopt and bitsandbytes");
}

/* Older GPTQ and AWQ checkpoints say it in a file of their own. */
static bool read_file(struct quant_config *q, const struct file_set *files, const char *name, const char *method, struct err *e)
{
    size_t len;
    char *text = file_set_read(files, name, 1 << 20, &len, e);
    json_t *j = text ? json_parse(text, len, e) : NULL;
    bool ok = j && read_method(q, j, method, e);
    json_decref(j);
    mem_free(text);
    return ok || err_prefix(e, "%s", name);
}

bool quant_config_read(struct quant_config *q, const json_t *config, const struct file_set *files, struct err *e)
{
    const json_t *j;
    const char *method;
    *q = (struct quant_config){ 0 };
    if (!json_get_obj(config, json_object_get(config, "quantization_config") ? "quantization_config" : "compression_config", &j, e))
        return err_prefix(e, "config.json");
    if (j) {
        const char *dflt = json_object_get(j, "config_groups") ? "compressed-tensors" : json_object_get(j, "load_in_8bit") ? "bitsandbytes" : "(none given)";
        return (json_get_str(j, "quant_method", dflt, &method, e) && read_method(q, j, method, e)) || err_prefix(e, "config.json");
    }
    if (file_set_has(files, "quantize_config.json"))
        return read_file(q, files, "quantize_config.json", "gptq", e);
    if (file_set_has(files, "quant_config.json"))
        return read_file(q, files, "quant_config.json", "awq", e);
    return true;
}
