/* The safetensors writer of the heed command: modes, links, full disks, and what it refuses. */
#define _GNU_SOURCE
#include "st_folder.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static int files_in_folder(void)
{
    int count = 0;
    DIR *open = opendir(folder);
    assert_non_null(open);
    for (struct dirent *entry; (entry = readdir(open));)
        count += entry->d_name[0] != '.';
    closedir(open);
    return count;
}

static const int64_t shape_5[] = {5};
static const unsigned char five[5] = {1, 2, 3, 4, 5};

static st_writer_t *begin(const char *name, st_error_t *error)
{
    const st_tensor_t tensor = TENSOR("x", "U8", 1, shape_5);
    return st_create(path_of(name), &tensor, 1, NULL, error);
}

static void expect_content(const char *name, const char *content)
{
    char found[64] = "";
    FILE *file = fopen(path_of(name), "rb");
    assert_non_null(file);
    found[fread(found, 1, sizeof found - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(found, content);
}

static void mode_follows_umask(void **state)
{
    (void)state;
    st_error_t error;
    struct stat about;
    mode_t before = umask(027);
    st_writer_t *writer = begin("mode", &error);
    umask(before);
    assert_non_null(writer);
    assert_true(st_append(writer, 0, five, 5, &error));
    assert_true(st_commit(writer, &error));
    assert_int_equal(stat(path_of("mode"), &about), 0);
    assert_int_equal(about.st_mode & 0777, 0640);
}

static void old_file_stays_until_commit(void **state)
{
    (void)state;
    st_error_t error;
    write_bytes(path_of("kept"), "old", 3);
    int files = files_in_folder();
    st_writer_t *writer = begin("kept", &error);
    assert_non_null(writer);
    assert_int_equal(files_in_folder(), files + 1);
    assert_true(st_append(writer, 0, five, 4, &error));
    expect_content("kept", "old");
    assert_false(st_append(writer, 0, five, 2, &error));
    assert_non_null(strstr(error.text, "x takes 5 bytes, not 6"));
    assert_false(st_commit(writer, &error));
    assert_non_null(strstr(error.text, "x has 4 of its 5 bytes"));
    expect_content("kept", "old");
    assert_int_equal(files_in_folder(), files);

    writer = begin("kept", &error);
    assert_non_null(writer);
    st_discard(writer);
    st_discard(NULL);
    expect_content("kept", "old");
    assert_int_equal(files_in_folder(), files);
}

static void full_disk(void **state)
{
    (void)state;
    st_error_t error;
    struct rlimit before, small;
    const int64_t length = 100000;
    const st_tensor_t tensor = TENSOR("x", "U8", 1, &length);
    char *data = calloc(1, 100000);
    assert_non_null(data);
    write_bytes(path_of("full"), "old", 3);
    int files = files_in_folder();
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 50000;
    st_writer_t *writer = st_create(path_of("full"), &tensor, 1, NULL, &error);
    assert_non_null(writer);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bool wrote = st_append(writer, 0, data, 100000, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_false(wrote);
    assert_non_null(strstr(error.text, "cannot be written: File too large"));
    st_discard(writer);
    expect_content("full", "old");
    assert_int_equal(files_in_folder(), files);
    free(data);
}

static void refused_targets(void **state)
{
    (void)state;
    st_error_t error;
    assert_null(begin("no/such/folder", &error));
    assert_non_null(strstr(error.text, "cannot be created: No such file"));
    assert_int_equal(mkdir(path_of("folder"), 0755), 0);
    assert_null(begin("folder", &error));
    assert_non_null(strstr(error.text, "folder: is not a regular file"));
    const st_tensor_t tensor = TENSOR("x", "U8", 1, shape_5);
    assert_null(st_create("/dev/null", &tensor, 1, NULL, &error));
    assert_string_equal(error.text, "/dev/null: is not a regular file");
}

static void refused_tensors(void **state)
{
    (void)state;
    st_error_t error;
    const int64_t negative[] = {2, -1}, huge[] = {INT64_MAX, 2}, eighth[] = {INT64_MAX / 64};
    const st_tensor_t cases[][3] = {
        {TENSOR("x", "U8", 1, shape_5), TENSOR("x", "F32", 1, shape_5)},
        {TENSOR("__metadata__", "U8", 1, shape_5), TENSOR("y", "U8", 1, shape_5)},
        {TENSOR("y", "U8", 1, shape_5), TENSOR("bad \xff", "U8", 1, shape_5)},
        {TENSOR("y", "U8", 1, shape_5), TENSOR("x", "F32", 2, negative)},
        {TENSOR("y", "U8", 1, shape_5), TENSOR("x", "F32", 2, huge)},
        {TENSOR("y", "U8", 1, shape_5), TENSOR("x", "F4", 1, shape_5)},
    };
    static const char *const sentences[] = {"the name x is taken", "the name __metadata__ is taken",
                                            "is its name UTF-8?",  "x.shape[1] is -1",
                                            "too large",           "ends within a byte"};
    int files = files_in_folder();
    for (int i = 0; i < 6; i++) {
        assert_null(st_create(path_of("refused"), cases[i], 2, NULL, &error));
        if (!strstr(error.text, sentences[i]))
            fail_msg("should say \"%s\", says \"%s\"", sentences[i], error.text);
    }
    st_tensor_t big[9]; /* an eighth of the largest offset each */
    char names[9][2];
    for (int i = 0; i < 9; i++) {
        snprintf(names[i], sizeof names[i], "%c", 'a' + i);
        big[i] = (st_tensor_t)TENSOR(names[i], "U64", 1, eighth);
    }
    assert_null(st_create(path_of("refused"), big, 9, NULL, &error));
    assert_non_null(strstr(error.text, "i makes the file too large"));
    assert_int_equal(files_in_folder(), files);
}

static void link_stays_a_link(void **state)
{
    (void)state;
    st_error_t error;
    struct stat about;
    write_bytes(path_of("real"), "old", 3);
    assert_int_equal(symlink("real", path_of("link")), 0);
    st_writer_t *writer = begin("link", &error);
    assert_non_null(writer);
    assert_true(st_append(writer, 0, five, 5, &error));
    assert_true(st_commit(writer, &error));
    assert_int_equal(lstat(path_of("link"), &about), 0);
    assert_true(S_ISLNK(about.st_mode));
    st_file_t *file = st_open(path_of("real"), &error);
    assert_non_null(file);
    st_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mode_follows_umask), cmocka_unit_test(old_file_stays_until_commit),
        cmocka_unit_test(full_disk),          cmocka_unit_test(refused_targets),
        cmocka_unit_test(refused_tensors),    cmocka_unit_test(link_stays_a_link),
    };
    return cmocka_run_group_tests_name("safetensors_write", tests, make_folder, remove_folder);
}
