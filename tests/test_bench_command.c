/* heed bench from outside. */
#define _GNU_SOURCE
#include "expect.h"

#include "bench.h"

#include <jansson.h>
#include <stdlib.h>
#include <sys/wait.h>

/* Runs it and returns its exit status; *output, from malloc, is what it wrote to both streams. */
static int run_command(const char *arguments, char **output)
{
    char command[1024];
    size_t size = 0, used;

    snprintf(command, sizeof(command), "'%s' bench 2>&1 %s", HEED_CLI, arguments);
    FILE *from = popen(command, "r");
    assert_non_null(from);
    *output = NULL;
    do {
        *output = bench_realloc(*output, size + 4096);
        used = fread(*output + size, 1, 4095, from);
        size += used;
    } while (used);
    (*output)[size] = '\0';
    int status = pclose(from);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void assert_command(const char *arguments, int status, const char *sentence)
{
    char *output;
    int got = run_command(arguments, &output);

    if (got != status || !strstr(output, sentence))
        fail_msg("heed bench %s: exit status %d\n%s", arguments, got, output);
    free(output);
}

static void test_usage(void **state)
{
    (void)state;
    assert_command("", 2, "which operation?");
    assert_command("knitting", 2, "there is no operation knitting");
    assert_command("cast attention", 2, "one operation at a time");
    assert_command("n=5 cast", 2, "the operation comes before the words of a problem: n=5");
    assert_command("cast m=1", 2, "--prob: ");
    assert_command("cast src=f32 dst=bf16 n=77 --dry-run", 0, "src=f32 dst=bf16 n=77");
    assert_command("'cast src=f32 n=78' dst=bf16 --dry-run", 0, "src=f32 dst=bf16 n=78");
    assert_command("cast --threads 0", 2, "--threads takes a number from 1");
    assert_command("cast --seconds nan", 2, "--seconds takes a number");
    assert_command("cast -o xml", 2, "--output takes md, csv or json");
    assert_command("cast --samples 5x", 2, "--samples takes a number");
    assert_command("cast --prob 'attention sq=1'", 2,
                   "this is a problem of attention, not of cast");
    assert_command("cast --prob 'cast m=1'", 2, "--prob: ");
    assert_command("cast --prob 'cast n=1' --dtype f99", 2, "f99");
    assert_command("cast --prob 'cast n=1' --impl cpu:none", 2, "is called cpu:none; there are:");
    assert_command("cast --prob 'cast n=1' --impl ,", 2, "--impl names no implementation");
    assert_command("cast --prob 'cast n=1' --max-isa mmx", 2, "mmx");
    assert_command("attention --shapes /nowhere", 2, "/nowhere: No such file");
    assert_command("--help", 0, "--no-check");
}

static void test_dry_run(void **state)
{
    (void)state;
    assert_command("attention --dry-run --impl cpu:standard --dtype f16", 0, "# GPT-2 prefill");
    assert_command("cast --dry-run --prob 'cast n=77' --threads 3", 0, " n=77");
}

static void test_command(void **state)
{
    char *output;

    (void)state;
    assert_int_equal(
        run_command("attention --prob 'attention sq=33 sk=65 d=24' --impl 'auto,cpu:*' "
                    "--dtype f32,bf16 --seconds 0 --samples 3 --threads 1 "
                    "--max-isa scalar -o json 2>/dev/null",
                    &output),
        0);
    json_t *root = json_loads(output, 0, NULL);
    assert_non_null(root);
    json_t *results = json_object_get(root, "results");
    /* decode, short, flash and standard, twice; auto is one of them. */
    assert_int_equal(json_array_size(results), 8);
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *result = json_array_get(results, i);
        assert_true(json_is_real(json_object_get(result, "max_err")));
        assert_true(json_is_real(json_object_get(result, "fraction_of_limit")));
        assert_true(json_integer_value(json_object_get(result, "median_ns")) > 0);
        assert_int_equal(json_array_size(json_object_get(result, "samples_ns")), 3);
    }
    assert_int_equal(json_array_size(json_object_get(root, "failed")), 0);
    json_t *refused = json_object_get(root, "refused");
    assert_true(json_array_size(refused) > 0); /* the ISAs that scalar leaves out */
    json_decref(root);
    free(output);
    assert_command("cast --prob 'cast n=5000' --impl 'cpu:*' --seconds 0 --no-check", 0,
                   "`src=f32 dst=bf16 n=5000`");
    /* Outputs of types with no number in common with f32: codes of E8M0, counts. */
    assert_command("cast --impl cpu:cast_scalar --seconds 0 --prob 'cast src=f32 dst=e4m3 n=4096 "
                   "rows=4 scale=block block=1,32 compute=1 form=mx use=divides scale_dtype=e8m0 "
                   "counts=1'",
                   0, "scale_dtype=e8m0 counts=1`");
}

/* Results of heed bench sparse or ring, of which the first is plain attention. */
static json_t *run_beside(const char *arguments, size_t count, const char *beside)
{
    char command[BENCH_TEXT], *output;
    snprintf(command, sizeof(command), "%s --seconds 0 --samples 2 -o json 2>/dev/null", arguments);
    assert_int_equal(run_command(command, &output), 0);
    json_t *root = json_loads(output, 0, NULL);
    free(output);
    assert_non_null(root);
    json_t *results = json_object_get(root, "results");
    assert_int_equal(json_array_size(results), count);
    assert_null(json_object_get(json_array_get(results, 0), "beside"));
    for (size_t i = 1; i < count; i++) {
        const json_t *result = json_array_get(results, i);
        assert_string_equal(json_string_value(json_object_get(result, "beside")), beside);
        assert_true(json_real_value(json_object_get(result, "of_beside")) > 0);
        assert_true(json_real_value(json_object_get(result, "max_err")) < 1e-5);
        assert_int_equal(json_array_size(json_object_get(result, "samples_ns")), 2);
    }
    return root;
}

static void test_beside(void **state)
{
    (void)state;
    json_t *root = run_beside("sparse --prob 'attention sq=512 hq=1 d=16 "
                              "tiles=text:blocks:128'",
                              2, "dense");
    const json_t *sparse = json_array_get(json_object_get(root, "results"), 1);
    expect_number(json_real_value(json_object_get(sparse, "density")), 0.25);
    assert_true(json_integer_value(json_object_get(sparse, "list_ns")) > 0);
    json_decref(root);
    root = run_beside("ring --prob 'attention sq=500 hq=2 hk=1 d=16 causal=1'", 4, "single pass");
    const json_t *ring = json_array_get(json_object_get(root, "results"), 3);
    assert_string_equal(json_string_value(json_object_get(ring, "impl")), "ring of 4, zigzag");
    json_decref(root);
    json_decref(run_beside("ring --prob 'attention sq=100 sk=300 hq=1 d=16'", 2, "single pass"));
    assert_command("sparse --prob 'attention sq=256 hq=1 d=16' --seconds 0", 1,
                   "has no tiles=text:VISIBILITY");
    assert_command("sparse --prob 'attention sq=256 hq=1 d=16 tiles=text:spiral'", 1,
                   "'spiral' is no term");
    assert_command("ring --device cuda", 2, "ring runs on the CPU");
    assert_command("sparse --prob 'attention sq=256 hq=1 d=16 tiles=text:all' --samples 1 "
                   "--seconds 0 --no-check",
                   0, "| list, of the attention |");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_dry_run),
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_beside),
    };

    return cmocka_run_group_tests_name("bench_command", tests, NULL, NULL);
}
