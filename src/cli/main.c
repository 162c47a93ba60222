/* quire: one program, one file a command (cmd_*.c). */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "cli/cli.h"

struct command {
    const char *name, *what;
    int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
    {"serve", "HTTP server: OpenAI API, metrics", cmd_serve},
    {"run", "one prompt, streamed to the terminal", cmd_run},
    {"chat", "interactive chat in the terminal", cmd_chat},
    {"batch", "many requests from a file, answers to a file", cmd_batch},
    {"score", "log-probabilities and perplexity of given text or token ids", cmd_score},
    {"quantize", "write a quantized checkpoint: int4, int8, fp8; by AWQ, GPTQ", cmd_quantize},
    {"watermark", "whether a text bears the watermark", cmd_watermark},
    {"tokenize", "text to token ids and back", cmd_tokenize},
    {"bench", "measurements: latency, throughput, serve, context, kernels, guide, startup", cmd_bench},
    {"render", "messages through a chat template", cmd_render},
    {"pull", "download a model from a Hugging Face compatible hub", cmd_pull},
    {"devices", "what was detected: CPU, cores, memory bandwidth", cmd_devices},
};

static void print_usage(FILE *f)
{
    fprintf(f, "quire " QUIRE_VERSION " - an engine that serves language models\n\nusage: quire COMMAND [MODEL] [options]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].what);
    fprintf(f, "\nMODEL is a folder in Hugging Face layout, a GGUF file, or a hub id such as org/name; without one, quire's\n"
               "small built-in model is used.\n"
               "'quire COMMAND --help' tells a command's options.\n");
}

int main(int argc, char **argv)
{
    /* A reader that ends, and a file that may not grow, are errors of a write and no reason to be killed. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        print_usage(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        puts("quire " QUIRE_VERSION);
        return CLI_OK;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return CLI_OK;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "quire: unknown command '%s'; see 'quire --help'\n", argv[1]);
    return CLI_USAGE;
}
