/* common.h - what several commands do: find models, read files, open contexts, write JSON. */
#ifndef FOVEA_APP_COMMON_H
#define FOVEA_APP_COMMON_H

#include "cli.h"
#include "terminal.h"

#include <cJSON.h>

/* Each command: argv[0] is its name; returns the exit code. */
int command_run(int argc, char **argv);
int command_compare(int argc, char **argv);
int command_info(int argc, char **argv);
int command_calibrate(int argc, char **argv);
int command_perplexity(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_attend(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_methods(int argc, char **argv);

/* The functions below return 0 or the exit code after printing the reason. */

/* A context with the wanted threads and level, watched for Ctrl-C. Destroy with common_close. */
int common_open(const cli_common *common, fv_context **out);
void common_close(fv_context *ctx);

/* The path of the model: -m, else $FOVEA_MODEL, else the default model. */
int common_model_path(const cli_common *common, char *path, size_t size);
/* A file that comes with Fovea, by its path from the project's root; looked for in the current directory, beside the
 * program, where it was built and where it is installed. */
int common_find(const char *name, const char *what, char *path, size_t size);
/* Opens the model, having said what is wrong with its path or its size. */
int common_model(const cli_common *common, fv_context *ctx, fv_model **out);
/* Says before the work begins if the recipe cannot be, and if `tokens` of context do not fit the model or the machine. */
int common_check_recipe(fv_context *ctx, const char *recipe);
int common_check_room(const cli_common *common, fv_context *ctx, const fv_model *model, const char *option, int64_t tokens,
                      bool beyond_trained);

/* The whole file, or stdin for "-"; free() it. It is terminated, the terminator not counted. */
int common_read(const char *path, char **text, size_t *size);
/* 0 if the file can be opened for reading; `option` names it in the message. */
int common_readable(const char *option, const char *path);
/* 0 if a file can be made there, said before the work that fills it. */
int common_writable(const char *option, const char *path);

/* Prints and deletes; NULL means that memory ran out. Returns the exit code. */
int common_print_json(cJSON *json);
/* Adds a string; bytes that are not UTF-8 become U+FFFD, as JSON wants. */
void common_json_text(cJSON *object, const char *name, const char *text, size_t size);
/* Prints text from a file on stdout, its control characters shown as \xNN. */
void common_print_clean(const char *text);
/* "28.7 MB", decimal units. */
const char *common_bytes(double bytes, char out[32]);

#endif
