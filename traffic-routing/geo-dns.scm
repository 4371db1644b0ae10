;;; geo-dns.scm --- which names are answered for, with how many addresses, for how long.
;;;
;;; Asked:    for each routed name and ranking when facts change; never during a query.
;;; Returns:  a list of count (addresses), ttl-min and ttl-max (seconds). The runtime
;;;           takes the shorter time while a region is unwell.
;;; On error: the runtime keeps the last version that loaded.

(require "repomind/prelude.scm")
(require "repomind/dns.scm")
(require "repomind/testing.scm")
(provide policy-api dns-answer)

(define policy-api 1)

;; The regions answer for themselves; one server for each of two continents, so that
;; resolvers find another when one of them is cut off.
(define zone
  '((names . ("@" "api" "www" "downloads"))
    (ns . (("ns1" . us-east) ("ns2" . eu-west)))
    (soa . ((contact . "hostmaster@repomind.io") (negative-ttl . 60)))
    (txt . (("@" "v=spf1 -all")))
    (caa . (("@" "issue" "letsencrypt.org")))
    (cname . (("assets" "downloads")))))

(define-zone "repomind.io" zone)

;; Two addresses let a client go on by itself when the first does not answer; a
;; third would send some clients across an ocean for nothing.
(define addresses 2)

;; Failover is as slow as the caches that still hold the old answer.
(define while-unwell 30)
(define while-well 60)

;; Bulk traffic is content to stay where it was sent for longer.
(define slow-names '("downloads" "assets" "cdn"))

(define (slow? name)
  (any (lambda (word) (starts-with? name (string-append word "."))) slow-names))

;;@doc
;; The shape of the answer for a name, given the ranked region ids.
(define (dns-answer name client ranked)
  (list (cons 'count (min addresses (length ranked)))
        (cons 'ttl-min while-unwell)
        (cons 'ttl-max (if (slow? name) 300 while-well))))

(define (of key name ranked) (cdr (assoc key (dns-answer name (sample-client) ranked))))

(test-module "geo-dns"
  (check-true "the API and its documents are routed"
              (every (lambda (name) (member name (zone-part 'names zone))) '("@" "api" "www" "downloads")))
  (check-true "there is a second server for when the first is cut off" (< 1 (length (zone-part 'ns zone))))
  (check-equal? "an answer names the best two regions"
                (of 'count "api.repomind.io" '(eu-west us-east ap-southeast)) 2)
  (check-equal? "one region is answered once, none not at all"
                (list (of 'count "api.repomind.io" '(eu-west)) (of 'count "api.repomind.io" '())) '(1 0))
  (check-equal? "downloads may be remembered longer than the API"
                (list (of 'ttl-max "downloads.repomind.io" '(eu-west)) (of 'ttl-max "api.repomind.io" '(eu-west)))
                '(300 60))
  (check-true "no client is held in an unwell region for more than half a minute"
              (<= (of 'ttl-min "downloads.repomind.io" '(eu-west)) 30)))
