// Programs that fetch, send and connect.
#include <algorithm>
#include <array>
#include <utility>

#include "safety/commands_model.h"

namespace hearth::safety {
namespace {

// Hosts to which a token in a header goes in the course of ordinary work.
bool is_known_service(std::string_view host) {
  for (const std::string_view name :
       {"api.github.com", "github.com",      "gitlab.com",     "api.openai.com",       "api.anthropic.com", "registry.npmjs.org",
        "pypi.org",       "upload.pypi.org", "huggingface.co", "api.bitbucket.org",    "circleci.com",      "api.cloudflare.com",
        "slack.com",      "api.stripe.com",  "sentry.io",      "api.digitalocean.com", "api.heroku.com",    "googleapis.com",
        "api.vercel.com", "api.linear.app",  "api.notion.com"})
    if (host == name || (host.size() > name.size() && host.ends_with(name) && host[host.size() - name.size() - 1] == '.')) return true;
  return false;
}

// What goes with a request: literal text, "@file", or something made at run time.
void send_data(Context& c, const Word& word, std::string_view host, bool at_file) {
  if (at_file && starts_with(word.text, "@")) return c.send_file(part_of(word, 1), host);
  c.send_word(word, host, "as data");
}

void send_header(Context& c, const Word& word, std::string_view host) {
  if (starts_with(word.text, "@")) return c.send_file(part_of(word, 1), host);
  if (word.exact) return;
  const bool authorization = [&] {
    const std::string low = lower_case(word.text);
    for (const std::string_view name : {"authorization:", "private-token:", "x-api-key:", "apikey:", "api-key:", "x-auth-token:",
                                        "x-vault-token:", "job-token:", "cookie:", "x-token:", "token:"})
      if (starts_with(low, name)) return true;
    return false;
  }();
  const Flow flow = c.flow_of(word);
  if (authorization && !flow.local && (is_known_service(host) || is_loopback(host) || is_trusted(host, c.where())))
    return c.report(Effect::send, "authenticates at " + std::string(host), std::string(host));
  c.send_word(word, host, "in a header");
}

// Where the address itself says what leaves.
void visit(Context& c, Word url, bool sends) {
  if (!looks_like_url(url.text) && !begins_unknown(url)) url.text = "http://" + url.text;
  c.fetch(url);
  if (sends) c.report(Effect::send, "sends to " + host_of(url.text), host_of(url.text), url.exact);
}

std::string name_in_url(const Word& url) {
  std::string_view text = url.text;
  text = text.substr(0, text.find_first_of("?#"));
  if (const auto scheme = text.find("://"); scheme != std::string_view::npos) text.remove_prefix(scheme + 3);
  const auto slash = text.rfind('/');
  if (slash == std::string_view::npos || slash + 1 == text.size()) return "index.html";
  return std::string(text.substr(slash + 1));
}

// A search server's index, or all of them, and not one document of it.
void delete_by_url(Context& c, std::string_view method, const Word& url) {
  if (method != "DELETE") return;
  const auto scheme = url.text.find("://");
  const auto path = url.text.find('/', scheme == std::string::npos ? 0 : scheme + 3);
  const std::string_view rest = path == std::string::npos ? std::string_view() : std::string_view(url.text).substr(path);
  const std::string_view place = std::string_view(url.text).substr(0, path);
  const bool search = place.ends_with(":9200") || place.ends_with(":9201");
  if (rest.find("/_doc/") != std::string_view::npos) return;
  if (search || rest.find("/_all") != std::string_view::npos || rest.find('*') != std::string_view::npos)
    c.report(Effect::database_destruction, "deletes an index of a search server", host_of(url.text));
}

void curl(Context& c) {
  static const Grammar grammar(
      "-d,--data,--data-ascii=d --data-binary=d --data-raw=r --data-urlencode=u --json=d -F,--form=f --form-string=r -T,--upload-file=S "
      "-o,--output=o -O,--remote-name --remote-name-all -J,--remote-header-name -H,--header=h --proxy-header=h "
      "-X,--request=_ -A,--user-agent=a -e,--referer=a -b,--cookie=b -c,--cookie-jar=W -u,--user=a -K,--config=K -x,--proxy=_ "
      "-U,--proxy-user=_ --preproxy=_ --socks5=_ --socks5-hostname=_ -E,--cert=_ --key=_ --cacert=_ --capath=_ -k,--insecure "
      "-L,--location -s,--silent -S,--show-error -f,--fail --fail-with-body -v,--verbose -i,--include -I,--head -w,--write-out=_ "
      "-m,--max-time=_ --connect-timeout=_ --retry=_ --retry-delay=_ --retry-max-time=_ -r,--range=_ -C,--continue-at=_ "
      "-D,--dump-header=W --trace=W --trace-ascii=W --stderr=W --resolve=_ --connect-to=_ --interface=_ --limit-rate=_ --output-dir=F "
      "--create-dirs --unix-socket=s --abstract-unix-socket=s --url=l --url-query=u -G,--get -n,--netrc --netrc-file=R "
      "-Q,--quote=_ -z,--time-cond=_ -Y=_ -y=_ --max-filesize=_ --max-redirs=_ --engine=L --libcurl=W --dns-servers=_ --doh-url=_ "
      "-t,--telnet-option=_ --mail-from=_ --mail-rcpt=_ --ciphers=_ --tls-max=_ --pinnedpubkey=_ -P=_ -Z,--parallel "
      "--parallel-max=_ -#,--progress-bar -g,--globoff -N,--no-buffer -4 -6 -0 -1 -2 -3 -a,--append -B -R -l -M -V -h -p -q -j "
      "--compressed --http1.1 --http2 --http3 --hsts=W --alt-svc=W --etag-save=W --etag-compare=R --oauth2-bearer=a --aws-sigv4=_ "
      "--variable=_ --expand-url=_ --expand-data=_ --request-target=_ --noproxy=_ --rate=_ --delegation=_ --krb=_ --login-options=_ "
      "--service-name=_ --proto=_ --proto-default=_ --proto-redir=_ --remove-on-error --ssl-reqd --negotiate --ntlm --basic "
      "--digest --anyauth --tlsv1.2 --tlsv1.3 --no-progress-meter");
  const auto args = parse_arguments(c.words, 1, grammar);
  std::vector<Word> urls = args.operands;
  for (const auto& option : args.options)
    if (option.name == "url" && option.has_value) urls.push_back(option.value);
  if (urls.empty() && !args.has("K")) { c.report(Effect::compute, "tells about itself"); }
  const std::string host = urls.empty() ? std::string{} : host_of(urls.front().text);
  bool sends = false;
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    const Word& value = option.value;
    switch (static_cast<char>(option.spec->role)) {
      case 'd':
        sends = true;
        send_data(c, value, host, true);
        break;
      case 'r':
        sends = true;
        send_data(c, value, host, false);
        break;
      case 'u': {  // content, =content, name=content, @file, name@file
        sends = true;
        const auto at = value.text.find('@');
        const auto equals = value.text.find('=');
        if (at != std::string::npos && (equals == std::string::npos || at < equals)) c.send_file(part_of(value, at + 1), host);
        else send_data(c, value, host, false);
        break;
      }
      case 'f': {  // name=@file, name=<file
        sends = true;
        const auto equals = value.text.find('=');
        const auto mark = equals == std::string::npos ? std::string::npos : equals + 1;
        if (mark != std::string::npos && mark < value.text.size() && (value.text[mark] == '@' || value.text[mark] == '<')) {
          Word file = part_of(value, mark + 1);
          file.text = file.text.substr(0, file.text.find(';'));
          c.send_file(file, host);
        } else {
          send_data(c, value, host, false);
        }
        break;
      }
      case 'S':
        sends = true;
        c.send_file(value, host);
        break;
      case 'h': send_header(c, value, host); break;
      case 'a':
        if (!value.exact && !is_known_service(host)) c.send_word(value, host, "in a header");
        break;
      case 'b':
        if (value.text.find('=') == std::string::npos) c.scan(value);
        else if (!value.exact) c.send_word(value, host, "as a cookie");
        break;
      case 'o':
        if (value.text == "-") break;
        if (value.exact && c.path_of(value) == "/dev/null") break;
        c.fetched_into(value);
        break;
      case 's': {
        const std::string path = c.path_of(value);
        const Site site = site_of(path, c.where());
        if (is_dangerous(site.on_write)) c.report(site.on_write, "talks to " + path + " (" + std::string(site.what) + ")", path);
        break;
      }
      case 'K':
        c.read(value);
        if (const auto known = c.run.script.written.find(c.path_of(value));
            known != c.run.script.written.end() &&
            (known->second.find("upload-file") != std::string::npos || known->second.find("data") != std::string::npos))
          c.report(Effect::exfiltration, "sends what its configuration says");
        break;
      case 'l': break;
      default: c.apply(option.spec->role, value);
    }
  }
  if (const Word* method = args.value("X"); method && method->text != "GET" && method->text != "HEAD" && method->text != "OPTIONS")
    sends = true;
  if (const Word* method = args.value("X"))
    for (const auto& url : urls) delete_by_url(c, method->text, url);
  for (const auto& url : urls) {
    // An operand after "-o" belongs to it; file:// is a read.
    visit(c, url, sends && !is_metadata_host(host_of(url.text)));
    if (args.any({"O", "remote-name-all"})) {
      Word file = plain(name_in_url(url));
      if (const Word* folder = args.value("output-dir")) file.text = folder->text + "/" + file.text;
      file.exact = url.exact;
      c.fetched_into(file);
    }
  }
}

void wget(Context& c) {
  static const Grammar grammar(
      "-O,--output-document=o -P,--directory-prefix=F -i,--input-file=i -o,--output-file=W -a,--append-output=W --post-file=S "
      "--body-file=S --post-data=d --body-data=d --method=_ --header=h -U,--user-agent=_ --referer=_ --load-cookies=R --save-cookies=W "
      "-e,--execute=e --use-askpass=P --user=_ --password=_ -q,--quiet -v -nv -nc,--no-clobber -c,--continue -r,--recursive -l,--level=_ "
      "-k,--convert-links -p,--page-requisites -m,--mirror -np,--no-parent -A,--accept=_ -R,--reject=_ -D=_ -t,--tries=_ "
      "-T,--timeout=_ -w,--wait=_ -N -S -nd,--no-directories -nH -x -E -H -L -b,--background -Q=_ --limit-rate=_ --no-check-certificate "
      "--show-progress --content-disposition --ca-certificate=_ --certificate=_ --private-key=_ --config=R --spider -4 -6 "
      "--cut-dirs=_ --restrict-file-names=_ --progress=_ --random-wait --warc-file=W --http-user=_ --http-password=_ --http-passwd=_ "
      "--proxy=_ --bind-address=_ --dns-timeout=_ --connect-timeout=_ --read-timeout=_ --waitretry=_ --domains=_ --exclude-domains=_ "
      "-X=_ -I=_ --reject-regex=_ --accept-regex=_ --retry-connrefused --max-redirect=_ --compression=_ -F,--force-html -B,--base=_ "
      "--start-pos=_ --input-metalink=R --rejected-log=W --default-page=_ --local-encoding=_ --remote-encoding=_");
  const auto args = parse_arguments(c.words, 1, grammar);
  const std::string host = args.operands.empty() ? std::string{} : host_of(args.operands.front().text);
  bool sends = false;
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    const Word& value = option.value;
    switch (static_cast<char>(option.spec->role)) {
      case 'd':
        sends = true;
        send_data(c, value, host, false);
        break;
      case 'S':
        sends = true;
        c.send_file(value, host);
        break;
      case 'h': send_header(c, value, host); break;
      case 'o':
        if (value.text != "-" && c.path_of(value) != "/dev/null" && c.path_of(value) != "/dev/stdout") c.fetched_into(value);
        break;
      case 'i': {
        // A file that is no list of addresses comes out in the error messages.
        c.read(value);
        const Site site = site_of(c.path_of(value), c.where());
        if (site.place == Place::system && !is_dangerous(site.on_read))
          c.report(Effect::exfiltration, "prints or sends the lines of a file as addresses", c.path_of(value));
        break;
      }
      case 'e': c.scan(value); break;
      case 'P':
        c.report(Effect::execute, "runs " + value.text, value.text);
        c.command_words({value}, "wget");
        break;
      default: c.apply(option.spec->role, value);
    }
  }
  const bool to_output = args.value("O") != nullptr;
  for (const auto& url : args.operands) {
    visit(c, url, sends);
    if (const Word* method = args.value("method")) delete_by_url(c, method->text, url);
    if (to_output || args.has("spider")) continue;
    Word file = plain(name_in_url(url));
    if (const Word* folder = args.value("P")) file.text = folder->text + "/" + file.text;
    file.exact = url.exact;
    c.output.network = false;
    if (!args.has("r") && !args.has("m")) c.fetched_into(file);
  }
  if (args.operands.empty() && !args.has("i")) c.report(Effect::compute, "tells about itself");
  if (to_output && args.value("O")->text == "-") c.output.network = true;
  if (to_output && args.value("O")->text != "-" && args.value("O")->text != "/dev/stdout") c.output.network = false;
}

void httpie(Context& c) {
  static const Grammar grammar(
      "-f,--form -j,--json -m,--multipart -o,--output=o -d,--download -p=_ -v -h -b -a,--auth=_ -A=_ -c -F --session=_ --verify=_ --cert=_ "
      "--timeout=_ --raw=d -I --ignore-stdin --pretty=_ -s=_ --proxy=_");
  const auto args = parse_arguments(c.words, 1, grammar);
  std::vector<Word> items = args.operands;
  bool sends = false;
  if (!items.empty() && items.front().text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string::npos) {
    sends = items.front().text != "GET" && items.front().text != "HEAD";
    items.erase(items.begin());
  }
  if (items.empty()) return c.report(Effect::compute, "tells about itself");
  const Word url = items.front();
  const std::string host = starts_with(url.text, ":") ? std::string("localhost") : host_of(url.text);
  if (starts_with(url.text, ":")) c.report(Effect::fetch, "fetches from localhost", host);
  else visit(c, url, sends);
  for (std::size_t i = 1; i < items.size(); ++i) {
    const auto at = items[i].text.find_first_of("@=:");
    if (at == std::string::npos) continue;
    if (items[i].text[at] == '@') c.send_file(part_of(items[i], at + 1), host);
    else if (items[i].text.substr(at, 2) == "=@") c.send_file(part_of(items[i], at + 2), host);
    else if (items[i].text.substr(at, 3) == ":=@") c.send_file(part_of(items[i], at + 3), host);
    else if (items[i].text[at] == ':' && items[i].text.substr(at, 2) != ":=") send_header(c, items[i], host);
    else send_data(c, items[i], host, false);
  }
  for (const auto& option : args.options)
    if (option.has_value && option.spec) {
      if (static_cast<char>(option.spec->role) == 'o') c.fetched_into(option.value);
      if (static_cast<char>(option.spec->role) == 'd') send_data(c, option.value, host, false);
    }
  if (c.command.pipe_from >= 0 && !args.has("I")) c.send_flow(c.input, host, "from its input");
}

bool has_input(const Context& c) {
  return c.command.pipe_from >= 0 || std::any_of(c.command.redirects.begin(), c.command.redirects.end(), [](const Redirect& r) {
           return r.kind == Redirect::Kind::here || (r.kind == Redirect::Kind::read && r.descriptor <= 0);
         });
}

// What goes into a connection.
void feed(Context& c, const std::string& host) {
  if (c.input.shell)
    return c.report(Effect::remote_code, "connects a shell to " + (host.empty() ? std::string("the network") : host) + " (a reverse shell)",
                    host);
  if (!has_input(c)) return;
  c.send_flow(c.input, host, "from its input");
}

void netcat(Context& c) {
  static const Grammar grammar(
      "-e,--exec=x -c,--sh-exec=x --lua-exec=L -l,--listen -p,--source-port=_ -n -v -w,--wait=_ -z -u,--udp -k,--keep-open -s=_ -q=_ -i=_ "
      "-o,--output=W -x,--hex-dump=W -X=_ -N -U -t -r -g=_ -G=_ -d -C -4 -6 -O=_ -I=_ -T=_ -m=_ "
      "--proxy=_ --ssl --ssl-cert=R --ssl-key=R --allow=_ --broker --chat --send-only --recv-only");
  const auto args = parse_arguments(c.words, 1, grammar);
  const std::string host = args.operands.empty() ? std::string{} : host_of(args.operands.front().text);
  c.output.network = true;
  bool runs = false;
  for (const auto& option : args.options) {
    if (!option.spec || static_cast<char>(option.spec->role) != 'x') {
      if (option.has_value && option.spec) c.apply(option.spec->role, option.value);
      continue;
    }
    if (!option.has_value) continue;
    runs = true;
    c.report(Effect::remote_code,
             "connects " + option.value.text + " to " + (host.empty() ? std::string("the network") : host) + " (a remote shell)", host,
             option.value.exact);
  }
  if (runs) return;
  if (args.has("l")) {
    if (has_input(c)) return feed(c, "");
    return c.report(Effect::fetch, "waits for a connection", host);
  }
  if (args.has("z")) return c.report(Effect::query, "looks whether a port is open", host);
  feed(c, host);
  c.report(Effect::fetch, "connects to " + host, host, args.operands.empty() || args.operands.front().exact);
}

// socat: two addresses, TYPE:parameters,options.
void socat(Context& c) {
  std::string host;
  bool runs = false, network = false;
  const Word* file = nullptr;
  Word path;
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    if (starts_with(c.words[i].text, "-") && c.words[i].text.size() > 1) continue;
    const Word& word = c.words[i];
    const auto colon = word.text.find(':');
    const std::string type = lower_case(word.text.substr(0, colon));
    const Word rest = colon == std::string::npos ? plain("") : part_of(word, colon + 1);
    if (type == "exec" || type == "system" || type == "shell" || starts_with(type, "exec,")) {
      runs = true;
      Word command = rest;
      command.text = rest.text.substr(0, rest.text.find(",pty") != std::string::npos ? rest.text.find(",pty") : rest.text.find(','));
      c.shell(command, "socat");
    } else if (starts_with(type, "tcp") || starts_with(type, "udp") || starts_with(type, "openssl") || starts_with(type, "ssl") ||
               starts_with(type, "sctp") || starts_with(type, "socks") || starts_with(type, "proxy") || starts_with(type, "dtls")) {
      network = true;
      if (type.find("listen") == std::string::npos && type.find("-l") == std::string::npos)
        host = host_of(rest.text.substr(0, rest.text.find(',')));
    } else if (starts_with(type, "file") || starts_with(type, "open") || starts_with(type, "gopen") || starts_with(type, "create") ||
               type[0] == '/' || type[0] == '.') {
      path = type[0] == '/' || type[0] == '.' ? word : rest;
      path.text = path.text.substr(0, path.text.find(','));
      file = &path;
    } else if (starts_with(type, "unix")) {
      const std::string socket = c.path_of(part_of(rest, 0, rest.text.find(',')));
      const Site site = site_of(socket, c.where());
      if (is_dangerous(site.on_write)) c.report(site.on_write, "talks to " + socket + " (" + std::string(site.what) + ")", socket);
    }
  }
  if (runs && network) return c.report(Effect::remote_code, "connects a program to the network (a remote shell)", host);
  if (runs) return c.report(Effect::privilege_escalation, "runs a program at the other end of a pipe");
  if (network && file) {
    c.send_file(*file, host);
    return;
  }
  c.output.network = network;
  if (network) feed(c, host);
  c.report(Effect::fetch, "connects to " + host, host);
}

// ---- ssh and what copies over it --------------------------------------------------------------------------------------------------------------------------------

void ssh_option(Context& c, const Word& value) {
  const std::string low = lower_case(value.text);
  for (const std::string_view name : {"proxycommand", "localcommand", "knownhostscommand", "match exec", "proxyusefdpass_", "xauthlocation",
                                      "pkcs11provider", "securitykeyprovider", "remotecommand_"}) {
    if (!starts_with(low, name)) continue;
    const auto at = value.text.find_first_of("= ", name.size());
    Word command = part_of(value, at == std::string::npos ? value.text.size() : at + 1);
    // "ssh -W %h:%p jump" is the usual way through another host.
    if (starts_with(command.text, "ssh ") && command.text.find("-W") != std::string::npos &&
        command.text.find_first_of(";|&`$") == std::string::npos)
      return;
    if (lower_case(command.text) == "none" || command.text.empty()) return;
    if (name == "pkcs11provider" || name == "securitykeyprovider") return c.load_library(command);
    c.report(Effect::remote_code, "makes SSH run a command on this machine, by " + std::string(name), command.text, command.exact);
    return c.shell(command, name);
  }
}

// A command that runs on another machine: its dangers count, its paths are those of over there.
void remote_command(Context& c, const Word& text, const std::string& host) {
  Assessment aside;
  Action there = c.run.action;
  there.where.working_folder.clear();
  there.where.follow_links = false;
  Run run{.script = c.run.script, .action = there, .out = aside, .depth = c.run.depth + 1};
  if (text.exact) assess_into(run, text.text, true, "ssh", {});
  for (auto& observation : aside.observations) {
    // Files over there are not this machine's: only what deletes them is.
    if (!is_dangerous(observation.effect) ||
        (observation.effect == Effect::filesystem_destruction && observation.reason.find("deletes") == std::string::npos))
      continue;
    observation.reason += ", on " + host;
    c.run.out.observations.push_back(std::move(observation));
  }
  c.report(Effect::execute, "runs a command on " + host, host, text.exact);
}

void ssh(Context& c) {
  static const Grammar grammar(
      "-o=o -i=_ -p=_ -l=_ -F=I -J=_ -L=_ -R=r -D=_ -W=_ -b=_ -c=_ -m=_ -e=_ -E=W -I=L -O=_ -Q=_ -S=_ -w=_ -B=_ --server=P --ssh=X "
      "--client=P -N -T -t -f -n -q -v -x -X "
      "-Y -y -A -a -C -g -K -k -M -s -V -G -4 -6 -1 -2");
  const auto args = parse_arguments(c.words, 1, grammar, Order::posix);
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    if (option.name == "o") ssh_option(c, option.value);
    else if (option.name == "R") c.report(Effect::exfiltration, "lets another host connect back to this machine", option.value.text);
    else c.apply(option.spec->role, option.value);
  }
  if (args.operands.empty()) return c.report(Effect::compute, "tells about itself");
  const std::string host = host_of(args.operands.front().text);
  if (starts_with(args.operands.front().text, "-")) c.report(Effect::remote_code, "takes an option for a host");
  c.output.network = true;
  if (args.operands.size() > 1) {
    Word text;
    for (std::size_t i = 1; i < args.operands.size(); ++i) {
      text.text += (i > 1 ? " " : "") + args.operands[i].text;
      text.exact = text.exact && args.operands[i].exact;
      text.substitution = text.substitution || args.operands[i].substitution;
    }
    if (!text.exact) c.send_word(text, host, "in a command");
    remote_command(c, text, host);
  } else {
    c.report(Effect::execute, "connects to " + host, host, args.operands.front().exact);
  }
  if (has_input(c) && (c.input.network || c.input.decoded) && args.operands.size() > 1 && is_shell(program_name(args.operands[1].text)))
    c.report(Effect::remote_code, "runs what was fetched or decoded on " + host, host);
  if (has_input(c) && (c.input.local || c.input.secret || c.input.any || c.input.shell)) {
    if (c.input.shell) c.report(Effect::remote_code, "connects a shell to " + host, host);
    else c.send_flow(c.input, host, "from its input");
  }
}

std::string remote_host(std::string_view text) {
  if (looks_like_url(text)) return host_of(text);
  return host_of(text.substr(0, text.find(':')));
}

void secure_copy(Context& c) {
  static const Grammar grammar("-o=o -i=_ -P=_ -p -F=I -J=_ -S=x -D=x -l=_ -c=_ -r -q -v -B -C -3 -4 -6 -O -T -R -s -A -X=_ -b=I -a -f -n");
  const auto args = parse_arguments(c.words, 1, grammar);
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    if (option.name == "o") ssh_option(c, option.value);
    else if (static_cast<char>(option.spec->role) == 'x') {
      c.report(Effect::remote_code, "runs " + option.value.text + " instead of ssh", option.value.text);
      c.shell(option.value, c.program);
    } else c.apply(option.spec->role, option.value);
  }
  if (args.operands.size() < 2) {
    for (const auto& operand : args.operands)
      c.report(Effect::fetch, "connects to " + remote_host(operand.text), remote_host(operand.text));
    return;
  }
  const Word& target = args.operands.back();
  const bool out = is_remote_path(target.text);
  for (std::size_t i = 0; i + 1 < args.operands.size(); ++i) {
    const Word& source = args.operands[i];
    if (is_remote_path(source.text)) {
      const std::string host = remote_host(source.text);
      c.report(Effect::fetch, "copies from " + host, host);
      if (!out) {
        Word into = target;
        c.run.files[c.path_of(into)].network = true;
      }
    } else if (out) {
      args.has("r") ? c.read_tree(source) : c.read(source);
      c.send_file(source, remote_host(target.text));
    } else {
      c.read(source);
    }
  }
  if (!out) c.write(target);
}

void rsync(Context& c) {
  static const Grammar grammar(
      "-a,--archive -v,--verbose -z,--compress -r,--recursive -e,--rsh=x --rsync-path=p -n,--dry-run --delete --delete-before "
      "--delete-during --delete-delay --delete-after --delete-excluded --del --remove-source-files --exclude=_ --include=_ "
      "--exclude-from=R --include-from=R --files-from=R -f,--filter=_ -u,--update -P --partial --progress --stats -h -i -l -L -p -o -g -t "
      "-O -D -H -A -X -S -x,--one-file-system -q,--quiet -c,--checksum -b,--backup --backup-dir=W --suffix=_ --bwlimit=_ "
      "--timeout=_ --port=_ --password-file=R --log-file=W -T,--temp-dir=F --compare-dest=_ --copy-dest=_ --link-dest=_ --chmod=_ "
      "--chown=_ --max-size=_ --min-size=_ --max-delete=_ --inplace --append --ignore-existing --existing --size-only --info=_ "
      "--out-format=_ --numeric-ids -W -R -m -k -K -C -0 --from0 --config=R --daemon --no-owner --no-group -M=_ --iconv=_ --mkpath "
      "--partial-dir=_ --block-size=_ --contimeout=_");
  const auto args = parse_arguments(c.words, 1, grammar);
  if (args.has("daemon")) return c.report(Effect::exfiltration, "offers folders to the network");
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    const char role = static_cast<char>(option.spec->role);
    if (role == 'x' || role == 'p') {
      const std::string name = program_name(option.value.text.substr(0, option.value.text.find(' ')));
      if (name != "ssh" && name != "rsync" && name != "sudo")
        c.report(Effect::remote_code, "runs " + option.value.text + " instead of ssh", option.value.text);
      if (role == 'x') {
        // "ssh -i key -p 22": options without a host yet.
        if (name == "ssh") {
          const auto proxy = lower_case(option.value.text).find("proxycommand");
          if (proxy != std::string::npos) ssh_option(c, part_of(option.value, proxy));
        } else {
          c.shell(option.value, "rsync");
        }
      }
    } else {
      c.apply(option.spec->role, option.value);
    }
  }
  if (args.operands.empty()) return c.report(Effect::compute, "tells about itself");
  if (args.operands.size() == 1) return c.report(Effect::list, "lists files", args.operands.front().text);
  const Word& target = args.operands.back();
  const bool out = is_remote_path(target.text);
  const bool dry = args.has("n");
  for (std::size_t i = 0; i + 1 < args.operands.size(); ++i) {
    const Word& source = args.operands[i];
    if (is_remote_path(source.text)) {
      c.report(Effect::fetch, "copies from " + remote_host(source.text), remote_host(source.text));
      if (!out) c.run.files[c.path_of(target)].network = true;
      continue;
    }
    c.read_tree(source);
    if (out && !dry) c.send_file(source, remote_host(target.text));
    if (args.has("remove-source-files") && !dry) c.remove(source, true);
  }
  if (!out && !dry) {
    c.write(target);
    const bool deletes = std::any_of(args.options.begin(), args.options.end(), [](const auto& o) { return starts_with(o.name, "del"); });
    if (deletes) {
      const std::string path = c.path_of(target);
      if (path == c.where().working_folder || path == ".")
        c.report(Effect::filesystem_destruction, "deletes everything in the workspace that its source does not hold", path, target.exact);
      else c.remove(target, true);
    }
  } else if (out && !dry &&
             std::any_of(args.options.begin(), args.options.end(), [](const auto& o) { return starts_with(o.name, "del"); })) {
    c.report(Effect::filesystem_destruction, "deletes on " + remote_host(target.text) + " what its source does not hold", target.text);
  }
}

constexpr auto programs = std::to_array<Named>({
    {"curl", curl},
    {"curlie", curl},
    {"wget", wget},
    {"wget2", wget},
    {"http", httpie},
    {"https", httpie},
    {"xh", httpie},
    {"xhs", httpie},
    {"httpie", httpie},
    {"nc", netcat},
    {"ncat", netcat},
    {"netcat", netcat},
    {"nc.traditional", netcat},
    {"nc.openbsd", netcat},
    {"pwncat", netcat},
    {"cryptcat", netcat},
    {"sbd", netcat},
    {"socat", socat},
    {"socat1", socat},
    {"ssh", ssh},
    {"slogin", ssh},
    {"mosh", ssh},
    {"autossh", ssh},
    {"dbclient", ssh},
    {"scp", secure_copy},
    {"pscp", secure_copy},
    {"rcp", secure_copy},
    {"rsync", rsync},
});

}  // namespace

std::span<const Named> network_programs() { return programs; }

}  // namespace hearth::safety
