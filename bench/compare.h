/* heed bench compare: result files joined problem by problem (compare.c), as a table or as input of
 * gnuplot (compare_report.c). */
#ifndef BENCH_COMPARE_H
#define BENCH_COMPARE_H

#include <stdbool.h>
#include <stdio.h>

enum { COMPARE_NAME = 64, COMPARE_MOST_PEERS = 24 };

/* The best implementation of one program on one problem. */
typedef struct compare_entry {
    double ns;               /* median of a call, NaN: none */
    char impl[COMPARE_NAME]; /* after the program's name */
} compare_entry_t;

typedef struct compare_row {
    char *prob;
    int threads;
    double flops, bytes; /* NaN: unknown */
    double limit_ns;     /* what the machine allows, NaN: unknown */
    char limit[32];
    compare_entry_t heed;
    compare_entry_t peers[COMPARE_MOST_PEERS];
} compare_row_t;

typedef struct compare_table {
    compare_row_t *rows;
    int row_count;
    char peers[COMPARE_MOST_PEERS][COMPARE_NAME]; /* programs other than heed */
    int peer_count;
    char machine[256];
    double drift; /* the largest of the files' limits_drift */
} compare_table_t;

/* Adds the results of a file of schema heed-bench-1. An implementation "program:method" belongs to
 * that program; cpu:, cuda: are heed. False after a complaint. */
bool compare_read(compare_table_t *table, const char *path);
void compare_free(compare_table_t *table);

/* The peer that is fastest on a row; -1: none. */
int compare_best_peer(const compare_table_t *table, const compare_row_t *row);

void compare_markdown(const compare_table_t *table, FILE *to);
/* Draws with gnuplot to a .svg or .png file; false after a complaint, such as that there is no
 * gnuplot. */
bool compare_plot(const compare_table_t *table, const char *path);

/* The command. */
int cmd_compare(int argc, char **argv);

#endif
