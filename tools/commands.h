/* The subcommands of `heed`. Each gets its own argv, with argv[0] such as "heed run", and returns
 * one of these. */
#ifndef TOOLS_COMMANDS_H
#define TOOLS_COMMANDS_H

enum {
    TOOL_OK = 0,
    TOOL_FAILED = 1, /* something asked for could not be done, or a check failed */
    TOOL_USAGE = 2   /* the command line cannot be understood; argp exits with it too */
};

int cmd_info(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_tune(int argc, char **argv);
int cmd_mask(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_bench(int argc, char **argv); /* bench/cmd_bench.c */

#endif
