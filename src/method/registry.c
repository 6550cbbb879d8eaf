/* registry.c - all families of methods, in the order of names. */
#include "method/method.h"

#include <string.h>

/* clang-format off */
static const fvi_method_family *const family[] = {
    &fvi_methods_dynamic,
    &fvi_methods_estimates,
    &fvi_methods_exact,
    &fvi_methods_layouts,
    &fvi_methods_patterns,
    &fvi_methods_static,
    &fvi_methods_tools,
    &fvi_methods_trees,
};
/* clang-format on */

enum { FAMILIES = sizeof family / sizeof *family };

const fvi_method_row *fvi_method_row_find(const char *name, size_t size) {
    for (int f = 0; f < FAMILIES; f++) {
        for (int i = 0; i < family[f]->n; i++) {
            const fvi_method_row *row = &family[f]->row[i];
            if (strlen(row->info.name) == size && memcmp(row->info.name, name, size) == 0) {
                return row;
            }
        }
    }
    return NULL;
}

const fv_method *fv_method_find(const char *name) {
    const fvi_method_row *row = fvi_method_row_find(name, strlen(name));
    return row == NULL ? NULL : &row->info;
}

/* The method whose name has exactly i names before it. */
const fv_method *fv_method_at(int i) {
    for (int f = 0; f < FAMILIES; f++) {
        for (int r = 0; r < family[f]->n; r++) {
            const fv_method *candidate = &family[f]->row[r].info;
            int before = 0;
            for (int g = 0; g < FAMILIES; g++) {
                for (int s = 0; s < family[g]->n; s++) {
                    before += strcmp(family[g]->row[s].info.name, candidate->name) < 0;
                }
            }
            if (before == i) {
                return candidate;
            }
        }
    }
    return NULL;
}
