/* facts_builtin.c - six facts in forms that the default model was trained on, spread over a text. */
#include "lab/lab.h"

fv_facts fv_facts_builtin(void) {
    static const fv_fact fact[] = {
        {"The special magic number for harbour-lantern is: 4817203.",
         "What is the special magic number for harbour-lantern mentioned in the text?", "4817203", .08},
        {"The pass key of copper-violin is 590271. Remember it.", "What is the pass key of copper-violin?", "590271", .24},
        {"One of the secret codes is for winter-orchard, and it is 7350186.", "What is the secret code for winter-orchard?",
         "7350186", .41},
        {"The special magic number for marble-falcon is: 2064975.",
         "What is the special magic number for marble-falcon mentioned in the text?", "2064975", .57},
        {"Note: the silver-anchor account holds 83146 coins.", "How many coins does the silver-anchor account hold?", "83146",
         .74},
        {"Remember that thunder-meadow means 1928460.", "What does thunder-meadow mean?", "1928460", .9},
    };
    /* callers read only: the list has no constness of its own */
    return (fv_facts){.fact = (fv_fact *)(uintptr_t)fact, .n = sizeof fact / sizeof fact[0]};
}
