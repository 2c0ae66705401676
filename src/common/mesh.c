/* Logical meshes: ranks as points of a grid. */
#include "split.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* A size without sign or blank, and what follows it. */
static bool read_size(const char **text, int64_t *size)
{
    *size = 0;
    if (!isdigit((unsigned char)**text))
        return false;
    for (; isdigit((unsigned char)**text); (*text)++)
        *size = hd_min(*size * 10 + (**text - '0'), INT64_C(1) << 40);
    return *size > 0;
}

heed_status_t heed_mesh_parse(const char *text, int32_t ranks, heed_mesh_t *mesh)
{
    if (!text || !mesh)
        return hd_fail(HEED_ERROR_NULL, "%s is null", text ? "mesh" : "text");
    if (ranks < 0)
        return hd_fail(HEED_ERROR_VALUE, "ranks=%d is below 0", ranks);
    heed_mesh_t made = {0};
    int64_t product = 1, size;
    const char *at = text;
    do {
        if (made.axes == HEED_MESH_MAX_AXES)
            return hd_fail(HEED_ERROR_SYNTAX, "mesh '%.80s' has more than %d axes", text,
                           HEED_MESH_MAX_AXES);
        if (!read_size(&at, &size))
            return hd_fail(HEED_ERROR_SYNTAX, "mesh '%.80s' is no sizes with x between, as 2x2x2",
                           text);
        if (size > INT32_MAX || (product *= size) > INT32_MAX)
            return hd_fail(HEED_ERROR_VALUE, "mesh '%.80s' has more than %d ranks", text,
                           INT32_MAX);
        made.size[made.axes++] = (int32_t)size;
    } while (*at++ == 'x');
    if (at[-1])
        return hd_fail(HEED_ERROR_SYNTAX, "mesh '%.80s' is no sizes with x between, as 2x2x2",
                       text);
    if (ranks && product != ranks)
        return hd_fail(HEED_ERROR_VALUE, "mesh '%.80s' has %lld ranks, but ranks=%d", text,
                       (long long)product, ranks);
    made.ranks = (int32_t)product;
    *mesh = made;
    return HEED_OK;
}

static heed_status_t check_mesh(const heed_mesh_t *mesh)
{
    int64_t product = 1;
    if (!mesh)
        return hd_fail(HEED_ERROR_NULL, "mesh is null");
    if (mesh->axes < 1 || mesh->axes > HEED_MESH_MAX_AXES)
        return hd_fail(HEED_ERROR_VALUE, "mesh.axes=%d is not 1 to %d", mesh->axes,
                       HEED_MESH_MAX_AXES);
    for (int32_t axis = 0; axis < mesh->axes; axis++) {
        if (mesh->size[axis] < 1 || (product *= mesh->size[axis]) > INT32_MAX)
            return hd_fail(HEED_ERROR_VALUE, "mesh.size[%d]=%d is below 1 or too large", axis,
                           mesh->size[axis]);
    }
    if (product != mesh->ranks)
        return hd_fail(HEED_ERROR_VALUE, "mesh.ranks=%d, but its sizes multiply to %lld",
                       mesh->ranks, (long long)product);
    return HEED_OK;
}

heed_status_t heed_mesh_point(const heed_mesh_t *mesh, int32_t rank, int32_t *point)
{
    HD_TRY(check_mesh(mesh));
    if (!point)
        return hd_fail(HEED_ERROR_NULL, "point is null");
    if (rank < 0 || rank >= mesh->ranks)
        return hd_fail(HEED_ERROR_VALUE, "rank=%d is not 0 to %d", rank, mesh->ranks - 1);
    for (int32_t axis = mesh->axes - 1; axis >= 0; rank /= mesh->size[axis--])
        point[axis] = rank % mesh->size[axis];
    return HEED_OK;
}

heed_status_t heed_mesh_rank(const heed_mesh_t *mesh, const int32_t *point, int32_t *rank)
{
    HD_TRY(check_mesh(mesh));
    if (!point || !rank)
        return hd_fail(HEED_ERROR_NULL, "%s is null", point ? "rank" : "point");
    int32_t made = 0;
    for (int32_t axis = 0; axis < mesh->axes; axis++) {
        if (point[axis] < 0 || point[axis] >= mesh->size[axis])
            return hd_fail(HEED_ERROR_VALUE, "point[%d]=%d is not 0 to %d", axis, point[axis],
                           mesh->size[axis] - 1);
        made = made * mesh->size[axis] + point[axis];
    }
    *rank = made;
    return HEED_OK;
}

heed_status_t heed_mesh_group(const heed_mesh_t *mesh, int32_t rank, uint32_t along, int32_t *count,
                              int32_t *members, int32_t *place)
{
    int32_t point[HEED_MESH_MAX_AXES], total = 1, own = 0;
    HD_TRY(heed_mesh_point(mesh, rank, point));
    if (!count || !place)
        return hd_fail(HEED_ERROR_NULL, "%s is null", count ? "place" : "count");
    if (along >> mesh->axes)
        return hd_fail(HEED_ERROR_VALUE, "along=0x%x names axes beyond the %d of the mesh", along,
                       mesh->axes);
    for (int32_t axis = 0; axis < mesh->axes; axis++)
        if (along >> axis & 1) {
            total *= mesh->size[axis];
            own = own * mesh->size[axis] + point[axis];
        }
    for (int32_t i = 0; members && i < total; i++) {
        int32_t rest = i;
        for (int32_t axis = mesh->axes - 1; axis >= 0; axis--)
            if (along >> axis & 1) {
                point[axis] = rest % mesh->size[axis];
                rest /= mesh->size[axis];
            }
        HD_TRY(heed_mesh_rank(mesh, point, &members[i]));
    }
    *count = total;
    *place = own;
    return HEED_OK;
}
