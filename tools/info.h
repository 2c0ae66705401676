/* `heed info`: what is known about the machine and the library, as one JSON object. Both outputs
 * are made from it, so that they say the same. */
#ifndef TOOLS_INFO_H
#define TOOLS_INFO_H

#include <heed/heed.h>

#include <jansson.h>

/* A new object, NULL where memory is out:
 *     schema, version, blas, devices[], missing{}, transports[], operations[{name, features[],
 * implementations[], auto[]}], environment[] */
json_t *info_collect(heed_context_t *context);

#endif
