/* recipe.h - a recipe as attend sees it: function tables and numbers, no names. src/method makes it from text. */
#ifndef FVI_RECIPE_H
#define FVI_RECIPE_H

#include "select/select.h"

typedef struct fvi_choice {
    const fvi_selector *selector;
    double value[FVI_PARAMETERS];
    int64_t delta;             /* rows from one that is corrected to the next (attend/correct.h); 0: no correction */
    int64_t break_even;        /* tiles of earlier positions are dense; 0: none */
    const fv_profile *profile; /* numbers for each layer and head, or NULL */
} fvi_choice;

struct fv_recipe {
    fv_context *ctx;
    fvi_choice choice[2];                    /* by fv_phase */
    const char *method[2];                   /* their names, for messages */
    const struct fvi_method_row *row[2];     /* the methods that they are */
    const struct fvi_method_row *wrapper[2]; /* what stands around them, or NULL */
    bool masks_only;                         /* hides keys that the cache keeps */
    bool kv_set;
    fv_dtype k_dtype, v_dtype;
    bool rotate_k, rotate_v;
    fv_profile *profile[2];    /* owned */
    char profile_path[2][256]; /* that the text names; "" if none */
    char text[1024];           /* normal form */
};

#endif
