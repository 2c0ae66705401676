/* heed mask from outside. */
#define _GNU_SOURCE
#include "cli.h"

static void draws_in_the_terminal(void **state)
{
    (void)state;
    EXPECT_OUT("  ▓▓      \n  ██▓▓    \n    ▓▓▓▓  \n      ██▓▓\n",
               "mask show 'causal & band:127,-1 & blocks:128 | band:64,0' --queries 256");
    EXPECT_OUT("256 queries, 256 keys: 100 % of the pairs, in 4 tiles of 128 x 128 (100 % of all), "
               "4 of them full",
               "mask show all --queries 256 --tile 128");
    EXPECT_OUT("1 rows of tiles see nothing", "mask show 'causal' --queries 128 --keys 64");
    /* Twenty tiles in five cells of four. */
    EXPECT_OUT("\n1280 queries", "mask show block_sparse:0.05 --queries 1280 --cells 5");
    assert_int_equal(strcspn(out, "\n"), strlen("  ░░        "));
}

static void draws_svg(void **state)
{
    (void)state;
    char svg[4096];
    EXPECT_OUT("12.5 %", "mask show 'blocks:64 & all' --queries 512 --svg blocks.svg");
    FILE *file;
    char path[128];
    snprintf(path, sizeof path, "%s/blocks.svg", folder);
    assert_non_null(file = fopen(path, "r"));
    svg[fread(svg, 1, sizeof svg - 1, file)] = '\0';
    fclose(file);
    assert_non_null(strstr(svg, "<title>blocks:64 &amp; all</title>"));
    int tiles = 0;
    for (const char *at = svg; (at = strstr(at, "fill-opacity=\"1\"")); at++)
        tiles++;
    assert_int_equal(tiles, 8);
    EXPECT_FAILED("/nowhere/x.svg: No such file", "mask show all --svg /nowhere/x.svg");
}

static void complains(void **state)
{
    (void)state;
    EXPECT_USAGE("a visibility is missing", "mask show");
    EXPECT_FAILED("'spiral' is no term", "mask show spiral");
    EXPECT_USAGE("'hide' is not show", "mask hide all");
    EXPECT_USAGE("one argument too many", "mask show band:1,0 causal");
    EXPECT_USAGE("--tile 96 is not 64 or 128", "mask show all --tile 96");
    EXPECT_USAGE("'0' is not 1 to", "mask show all --queries 0");
    EXPECT_OUT("Examples:", "mask --help");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_in_the_terminal),
        cmocka_unit_test(draws_svg),
        cmocka_unit_test(complains),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
