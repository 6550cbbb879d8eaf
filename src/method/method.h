/* method.h - the registry: one row a method. Families of rows stand in files of their own; registry.c lists the families.
 *
 * To add a method: its selector, policy, score part or rule in that part's room, one row here, one test in tests/method.
 */
#ifndef FVI_METHOD_H
#define FVI_METHOD_H

#include "attend/recipe.h"

typedef struct fvi_method_row {
    fv_method info;
    const fvi_selector *selector;                    /* for the axes prefill and decode */
    const fvi_selector *step;                        /* positions are the method's, and generated tokens follow it by this */
    bool masks_only;                                 /* hides keys, frees none */
    const char *(*arrays_only)(const double *value); /* why a model cannot take it, or NULL; NULL: every model can */
    bool wraps;                                      /* stands around another method, in brackets: see recipe.c */
    bool profile;                                    /* takes numbers for each layer and head from a profile */
    int64_t break_even; /* of an index selector: tiles of earlier positions run dense unless fallback=0 */
} fvi_method_row;

typedef struct fvi_method_family {
    const fvi_method_row *row;
    int n;
} fvi_method_family;

extern const fvi_method_family fvi_methods_dynamic;
extern const fvi_method_family fvi_methods_estimates;
extern const fvi_method_family fvi_methods_exact;
extern const fvi_method_family fvi_methods_layouts;
extern const fvi_method_family fvi_methods_patterns;
extern const fvi_method_family fvi_methods_static;
extern const fvi_method_family fvi_methods_tools;
extern const fvi_method_family fvi_methods_trees;

const fvi_method_row *fvi_method_row_find(const char *name, size_t size);

#endif
