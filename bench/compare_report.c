/* The table and the picture of heed bench compare. */
#define _GNU_SOURCE
#include "compare.h"

#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Reading more than computing: where a result is told in bytes. */
static bool is_read_bound(const compare_row_t *row)
{
    return strstr(row->limit, "read") || strstr(row->limit, "copy") || row->flops == 0;
}

/* A rate in 10^9 a second, of operations or of bytes; NaN: not known. */
static double rate_of(const compare_row_t *row, double ns)
{
    return (is_read_bound(row) ? row->bytes : row->flops) / ns;
}

/* ---- the table ------------------------------------------------------------------------------- */

static void put_rate(const compare_row_t *row, double ns, bool bold, FILE *to)
{
    double rate = rate_of(row, ns);

    if (!(rate > 0))
        fputs(" |", to);
    else
        fprintf(to, bold ? " **%.*f** |" : " %.*f |", rate < 10 ? 2 : rate < 100 ? 1 : 0, rate);
}

static void put_row(const compare_table_t *table, const compare_row_t *row, FILE *to)
{
    int best = compare_best_peer(table, row);
    char problem[BENCH_TEXT];

    bench_short_problem(row->prob, problem, sizeof(problem));
    fprintf(to, "| %s | %d | %s |", problem, row->threads, is_read_bound(row) ? "GB/s" : "GF/s");
    put_rate(row, row->limit_ns, false, to);
    put_rate(row, row->heed.ns, best < 0 || row->heed.ns <= row->peers[best].ns, to);
    if (row->limit_ns > 0 && row->heed.ns > 0)
        fprintf(to, " %.0f %% |", 100 * row->limit_ns / row->heed.ns);
    else
        fputs(" |", to);
    for (int p = 0; p < table->peer_count; p++)
        put_rate(row, row->peers[p].ns, p == best && !(row->heed.ns <= row->peers[p].ns), to);
    if (best < 0 || !(row->heed.ns > 0)) {
        fputs(" | |\n", to);
        return;
    }
    double ratio = row->peers[best].ns / row->heed.ns;
    fprintf(to, " %.2f | %s%s %s |\n", ratio, ratio < 1 ? "**loses** to " : "", table->peers[best],
            row->peers[best].impl);
}

void compare_markdown(const compare_table_t *table, FILE *to)
{
    int compared = 0, won = 0;

    for (int r = 0; r < table->row_count; r++) {
        int best = compare_best_peer(table, &table->rows[r]);
        compared += best >= 0 && table->rows[r].heed.ns > 0;
        won += best >= 0 && table->rows[r].heed.ns <= table->rows[r].peers[best].ns;
    }
    fprintf(to, "%s. Medians; useful operations, or bytes read where reading binds.\n",
            table->machine[0] ? table->machine : "CPU");
    if (table->drift > BENCH_DRIFT)
        fprintf(to,
                "The limits moved by up to %.0f %% during the runs: the machine was not alone.\n",
                100 * table->drift);
    fprintf(to, "Heed is ahead of every peer on %d of %d problems.\n\n", won, compared);
    fputs("| problem | threads | in | limit | heed | of limit |", to);
    for (int p = 0; p < table->peer_count; p++)
        fprintf(to, " %s |", table->peers[p]);
    fputs(" best peer / heed | best peer |\n|---|--:|---|--:|--:|--:|", to);
    for (int p = 0; p < table->peer_count; p++)
        fputs("--:|", to);
    fputs("--:|---|\n", to);
    for (int r = 0; r < table->row_count; r++)
        put_row(table, &table->rows[r], to);
}

/* ---- the picture ----------------------------------------------------------------------------- */

/* One line a problem: its name and the share of the limit of Heed and of each peer. */
static void put_data(const compare_table_t *table, FILE *to)
{
    for (int r = 0; r < table->row_count; r++) {
        const compare_row_t *row = &table->rows[r];
        char problem[BENCH_TEXT];
        double limit = row->limit_ns > 0 ? row->limit_ns : row->heed.ns;
        bench_short_problem(row->prob, problem, sizeof(problem));
        for (char *c = problem; *c; c++)
            *c = *c == '`' || *c == '"' ? ' ' : *c;
        fprintf(to, "\"%s (%d)\" %g", problem, row->threads, 100 * limit / row->heed.ns);
        for (int p = 0; p < table->peer_count; p++)
            fprintf(to, " %g", 100 * limit / row->peers[p].ns);
        fputc('\n', to);
    }
}

static void put_script(const compare_table_t *table, const char *path, FILE *to)
{
    bool svg = !strcmp(path + strlen(path) - 4, ".svg");
    int height = 160 + 34 * table->row_count;

    fprintf(to, "set terminal %s noenhanced size 1100,%d\nset output ARG1\n", svg ? "svg" : "png",
            height);
    fprintf(to, "set title '%% of the limit, %s'\nset key outside top horizontal\n",
            table->machine);
    fputs("set grid xtics\nset xrange [0:110]\nset lmargin 62\nset datafile missing 'nan'\n"
          "$data << END\n",
          to);
    put_data(table, to);
    fprintf(to,
            "END\nset yrange [%d:-1]\nplot $data using 2:0:ytic(1) with points pt 7 ps 1.4 lc "
            "rgb '#c00000' title 'heed'",
            table->row_count);
    for (int p = 0; p < table->peer_count; p++)
        fprintf(to, ", '' using %d:0 with points pt %d title '%s'", p + 3, p % 12 + 1,
                table->peers[p]);
    fputc('\n', to);
}

/* Runs gnuplot on a script without a shell, which would read the path. */
static int run_gnuplot(const char *script, const char *path)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        execlp("gnuplot", "gnuplot", "-c", script, path, (char *)NULL);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

bool compare_plot(const compare_table_t *table, const char *path)
{
    char script[] = "/tmp/heed-compare-XXXXXX";
    int file = mkstemp(script);
    FILE *to = file < 0 ? NULL : fdopen(file, "w");

    if (!to) {
        bench_complain("%s cannot be written", script);
        return false;
    }
    put_script(table, path, to);
    bool good = !fclose(to);
    int code = good ? run_gnuplot(script, path) : -1;
    unlink(script);
    if (code == 127)
        bench_complain("there is no gnuplot, so %s was not drawn (Debian: gnuplot-nox)", path);
    else if (code)
        bench_complain("gnuplot could not draw %s", path);
    return code == 0;
}
