/* The `heed` command: a table of subcommands over the public interface of the library. */
#define _GNU_SOURCE
#include "commands.h"
#include "text.h"

#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct command {
    const char *name;
    const char *about;
    int (*run)(int argc, char **argv);
} command_t;

static int cmd_help(int argc, char **argv);
static int cmd_version(int argc, char **argv);

static const command_t commands[] = {
    {"info", "show the machine, its devices, and what Heed would run on it", cmd_info},
    {"run", "run an operation on the tensors of a file", cmd_run},
    {"convert", "convert the tensors of a file to another dtype", cmd_convert},
    {"inspect", "list the tensors of a file, their ranges and histograms", cmd_inspect},
    {"explain", "show why an implementation is chosen for a problem", cmd_explain},
    {"mask", "draw which keys each query sees", cmd_mask},
    {"plan", "show how tensors, layers and microbatches are shared out", cmd_plan},
    {"bench", "check and time implementations on a list of problems", cmd_bench},
    {"tune", "measure the machine once, so that estimates fit it", cmd_tune},
    {"help", "show this, or the help of a command", cmd_help},
    {"version", "print the version", cmd_version},
};

enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static const command_t *find(const char *name)
{
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* argp names the program after argv[0] in its messages, so that carries the command. */
static int start(const command_t *command, int argc, char **argv)
{
    char name[32];
    snprintf(name, sizeof name, "heed %s", command->name);
    argv[0] = name;
    return command->run(argc, argv);
}

static int unknown(const char *name)
{
    char known[128] = "";
    for (int i = 0; i < COMMAND_COUNT; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "",
                 commands[i].name);
    return tool_misuse("there is no command %s; there are %s", name, known);
}

static int cmd_help(int argc, char **argv)
{
    static char ask[] = "--help";
    if (argc > 1 && strcmp(argv[1], ask) != 0) {
        const command_t *command = find(argv[1]);
        char *of[] = {NULL, ask, NULL};
        return command ? start(command, 2, of) : unknown(argv[1]);
    }
    printf("Usage: heed COMMAND [OPTION...]\n\nThe attention library for C, from the command "
           "line.\n\n");
    for (int i = 0; i < COMMAND_COUNT; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].about);
    printf("\nExamples:\n"
           "  heed info\n"
           "  heed run attention --input qkv.safetensors --output out.safetensors --causal\n"
           "  heed explain attention dtype=bf16 sq=2048 sk=2048 hq=32 hk=8 d=128\n"
           "  heed bench attention --shapes bench/shapes/models.txt\n"
           "\n`heed COMMAND --help` tells more. Exit codes: 0 done, 1 failed, 2 the command line "
           "cannot be understood.\n");
    return TOOL_OK;
}

static int cmd_version(int argc, char **argv)
{
    (void)argv;
    if (argc > 1)
        return tool_misuse("version takes no arguments");
    printf("heed %s\n", heed_version());
    return TOOL_OK;
}

/* A full disk behind stdout is a failure too. */
static int finish(int code)
{
    bool lost = ferror(stdout) || fflush(stdout);
    return lost && code == TOOL_OK ? tool_fail("standard output cannot be written") : code;
}

int main(int argc, char **argv)
{
    argp_err_exit_status = TOOL_USAGE;
    setenv("ARGP_HELP_FMT", "rmargin=99", 0); /* examples stay on one line */
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of write(), not the end */
    if (argc < 2) {
        cmd_help(0, NULL);
        return TOOL_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";
    const command_t *command = find(name);
    return command ? finish(start(command, argc - 1, argv + 1)) : unknown(name);
}
