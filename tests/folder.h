/* A folder of the test's own, made before its tests and removed after them. */
#ifndef TESTS_FOLDER_H
#define TESTS_FOLDER_H

#include <stdio.h>
#include <stdlib.h>

static char folder[64];

/* name: what the folder's begins with. 0, or -1 where it cannot be made. */
static inline int open_folder(const char *name)
{
    snprintf(folder, sizeof folder, "/tmp/heed-%s-XXXXXX", name);
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

#endif
