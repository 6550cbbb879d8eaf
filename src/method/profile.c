/* profile.c - the profiles that a recipe names. */
#include "select/profile.h"

#include "method/method.h"

#include <string.h>

const char *fv_recipe_method(const fv_recipe *recipe, fv_phase phase) { return recipe->method[phase]; }

const fv_profile *fv_recipe_profile(const fv_recipe *recipe, fv_phase phase) { return recipe->choice[phase].profile; }

const char *fv_recipe_profile_path(const fv_recipe *recipe, fv_phase phase) {
    return recipe->profile_path[phase][0] == '\0' ? NULL : recipe->profile_path[phase];
}

fv_status fv_recipe_lend(fv_recipe *recipe, fv_phase phase, const fv_profile *profile) {
    const char *method = recipe->row[phase]->info.name;
    if (strcmp(method, profile->method) != 0) {
        return fvi_fail(recipe->ctx, FV_ERR_ARGUMENT, "the profile is of %s, the recipe's method is %s: calibrate for that one",
                        profile->method, method);
    }
    fv_profile_destroy(recipe->profile[phase]);
    recipe->profile[phase] = NULL;
    recipe->choice[phase].profile = profile;
    return FV_OK;
}

fv_status fv_recipe_attach(fv_recipe *recipe, fv_phase phase, fv_profile *profile) {
    fv_status status = fv_recipe_lend(recipe, phase, profile);
    if (status == FV_OK) {
        recipe->profile[phase] = profile;
    }
    return status;
}
